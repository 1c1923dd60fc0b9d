"""What the plan says of a configuration, for programs: the record that ``scripts/plan.py --check --json`` writes."""

from regdpo.core.section import Section


class Answer(Section):
    """Of one training or stage."""

    key: str  # of its settings in the configuration
    fits: bool
    said: str  # to people: what it needs, or why it does not fit


class Planned(Section):
    """Of all that was asked about."""

    unknown: str = ""  # why nothing is planned; empty: it is
    answers: tuple[Answer, ...] = ()

    @property
    def refused(self) -> list[str]:
        return [answer.said for answer in self.answers if not answer.fits]
