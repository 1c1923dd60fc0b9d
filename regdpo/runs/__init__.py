"""What a training's run folder holds, and how its ranks meet. None of it changes a result."""
