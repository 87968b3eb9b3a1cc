"""`popcomm play`: what is said, symbol by symbol, on the terminal and beneath the pictures of a GIF."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from popcomm.rollout.playback import Moment, moments

__all__ = ["caption", "captioned", "moments", "show"]

FRAME_MS = 100  # milliseconds that a picture of the GIF stands
# Of more agents in a step the first are shown.
ON_TERMINAL, IN_PICTURE = 20, 12
LINE, MARGIN = 14, 4  # pixels: the height of a line of text, and what is left beside it


def show(shown: Iterable[Moment], gif: Path | None, echo: Callable[[str], object]) -> None:
    """Say what is said in every moment, and write their pictures as an endless animation, where there is a file."""
    images = []
    for moment in shown:
        echo(f"step {moment.step}" + ("" if moment.said else ": silence"))
        for line in caption(moment, ON_TERMINAL):
            echo(f"  {line}")
        if moment.picture is not None:
            images.append(captioned(moment))
    if gif is not None:
        height = max(image.height for image in images)
        images = [_at_height(image, height) for image in images]
        images[0].save(gif, save_all=True, append_images=images[1:], duration=FRAME_MS, loop=0)
        echo(f"{gif}: {len(images)} pictures")


def caption(moment: Moment, most: int) -> list[str]:
    """A line for each agent that speaks, of `most` at most."""
    lines = [str(saying) for saying in moment.said[:most]]
    more = len(moment.said) - most
    return [*lines, f"... and {more} more"] if more > 0 else lines


def captioned(moment: Moment) -> Image.Image:
    """The picture of a moment, and beneath it what is said."""
    assert moment.picture is not None
    picture = Image.fromarray(moment.picture)
    lines = [f"step {moment.step}", *caption(moment, IN_PICTURE)]
    whole = _at_height(picture, picture.height + LINE * len(lines) + 2 * MARGIN)
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default()
    for place, line in enumerate(lines):
        pen.text((MARGIN, picture.height + MARGIN + LINE * place), line, fill="black", font=font)
    return whole


def _at_height(picture: Image.Image, height: int) -> Image.Image:
    """The picture on white, as high as that."""
    whole = Image.new("RGB", (picture.width, height), "white")
    whole.paste(picture, (0, 0))
    return whole
