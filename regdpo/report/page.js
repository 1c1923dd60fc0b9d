// Videos of one clip run together: whenever the first begins again, the others do; those out of sight rest.
const strips = [...document.querySelectorAll(".strip")];
const all = [...document.querySelectorAll("video")];
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
let playing = !still;
const visible = new Set();

const moving = (strip) => [...strip.querySelectorAll("video:not(.still)")];
const align = (strip) => {
  const [first, ...others] = moving(strip);
  others.filter((video) => Math.abs(video.currentTime - first.currentTime) > 0.01)
    .forEach((video) => { video.currentTime = first.currentTime; });
};
const ready = (video) => video.readyState > 2 || video.error || new Promise((done) => {
  ["canplay", "error"].forEach((event) => video.addEventListener(event, done, { once: true }));
});
// They begin at the same frame, once all can, and stand at the same one.
const run = async (strip) => {
  const videos = moving(strip);
  videos.forEach((video) => video.pause());
  align(strip);
  await Promise.all(videos.map(ready));
  if (playing && visible.has(strip)) videos.forEach((video) => video.play().catch(() => {}));
};
for (const strip of strips) moving(strip)[0].addEventListener("seeked", () => align(strip));
const watch = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
  isIntersecting ? visible.add(target) : visible.delete(target);
  run(target);
}));
strips.forEach((strip) => watch.observe(strip));

const pause = document.querySelector("#pause");
const label = () => { pause.textContent = playing ? "Pause" : "Play"; };
pause.addEventListener("click", () => { playing = !playing; label(); strips.forEach(run); });
const speeds = [...document.querySelectorAll("[data-speed]")];
speeds.forEach((button) => button.addEventListener("click", () => {
  all.forEach((video) => { video.playbackRate = Number(button.dataset.speed); });
  speeds.forEach((other) => other.setAttribute("aria-pressed", other === button));
}));
label();
