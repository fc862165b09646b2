"""What people ask with: words, picture files, files of prompts; and where answers go."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lit_eve.inference.assistant import Answer, Question, ask, check_placeholders
from lit_eve.inference.encode import pictures_in
from lit_eve_data.disk.records import IMAGE, BadSampleError, StoredImage
from lit_eve_data.sources.validation import MOST_BYTES, ImageRules, check_image

_WORDS = ("prompt", "text", "question")
"""Keys under which a line may hold what is asked; `text` is LLaVA's."""
_PICTURES = ("images", "image")


@dataclass(frozen=True)
class Request:
    """One line of a file of prompts, its pictures still on disk."""

    place: str
    """Where it comes from, for messages."""
    prompt: str
    pictures: tuple[Path, ...]
    seed: int
    fields: Mapping[str, Any]
    """The line as it was read; kept with the answer."""

    def question(self) -> Question:
        """With its pictures read."""
        return ask(self.prompt, [read_picture(p) for p in self.pictures], self.seed, self.place)


def read_picture(path: Path) -> StoredImage:
    """A picture file as the data rooms would store it: upright, opaque, in RGB.

    Raises:
        ValueError: if there is no such file, or no picture in it that a model could use.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path} has more than {MOST_BYTES:,} bytes: no picture needs that.")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read: {error.strerror}, so the model would see nothing. Give the "
            "path of a PNG, JPEG or WebP file."
        ) from error
    return stored(data, str(path))


def stored(data: bytes, name: str) -> StoredImage:
    """The bytes of a picture file as the data rooms would store them.

    Args:
        data: of the file.
        name: of the picture, for messages.

    Raises:
        ValueError: if there is no picture in it that a model could use.
    """
    try:
        return check_image(data, ImageRules())
    except BadSampleError as error:
        raise ValueError(
            f"{name} is no picture that can be read ({error}): the model would see nothing. Give a "
            "whole PNG, JPEG or WebP file."
        ) from error


def of_folder(folder: Path, prompt: str, seed: int) -> list[Request]:
    """The same prompt for every picture of a folder; the n-th one draws from `seed` + n.

    Raises:
        ValueError: if there are none.
    """
    requests = [
        Request(str(file), prompt, (file,), seed + number, {"image": str(file.relative_to(folder))})
        for number, file in enumerate(pictures_in([folder]))
    ]
    for request in requests:
        check_request(request)
    return requests


def read_prompts(file: Path, images: Path | None, seed: int) -> list[Request]:
    """A file of prompts: one JSON object a line.

    A line has `prompt` (or `text`, or `question`), `image` or `images` if it is about some, and
    `seed` if it draws from one of its own (else `seed` + n for the n-th line). All else is kept
    with the answer.

    Args:
        file: with a JSON object a line; empty lines are skipped.
        images: folder that names of pictures are relative to; the file's own if None.
        seed: of the first line's draws.

    Raises:
        ValueError: with everything that is wrong with the file, by line.
    """
    requests: list[Request] = []
    wrong: list[str] = []
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            own = seed + len(requests) + len(wrong)
            requests.append(_request(line, place, images or file.parent, own))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        more = f"\n... and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise ValueError("\n".join(wrong[:10]) + more)
    if not requests:
        raise ValueError(f"{file} holds no prompts: write one JSON object a line.")
    return requests


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(
            f"{file} cannot be read: {error.strerror}, so nothing was asked. Give the path of a "
            "file with one JSON object a line."
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8: {error}. Save it as UTF-8.") from error


def _request(line: str, place: str, images: Path, seed: int) -> Request:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}: no JSON ({error}). Write one object a line.") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{place}: expected an object with `prompt`, found {line.strip()[:40]}.")
    prompt = _one_of(fields, _WORDS, place)
    named = _one_of(fields, _PICTURES, place)
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"{place}: there is no `prompt`, so nothing is asked. Add one.")
    names = [named] if isinstance(named, str) else named or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{place}: `images` is no list of file names: {named!r}.")
    seed = fields.get("seed", seed)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"{place}: `seed` is no whole number: {seed!r}.")
    pictures = tuple(images / name for name in names)
    request = Request(place, prompt, pictures, seed, fields)
    check_request(request)
    return request


def _one_of(fields: Mapping[str, Any], keys: Sequence[str], place: str) -> Any:
    there = [key for key in keys if key in fields]
    if len(there) > 1:
        raise ValueError(
            f"{place}: {' and '.join(map(repr, there))} say the same thing. Leave one of them."
        )
    return fields[there[0]] if there else None


def check_request(request: Request) -> None:
    """Look at a request without decoding its pictures.

    Raises:
        ValueError: if a file is missing or no picture, or the placeholders do not match.
    """
    for path in request.pictures:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its size: that is checked when it is read
                Image.open(path).close()
        except (OSError, Image.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(
                f"{request.place}: {path} is no picture that can be read ({reason}): the model "
                "would see nothing. Give the path of a PNG, JPEG or WebP file."
            ) from error
    if IMAGE in request.prompt:
        turns = ask(request.prompt).turns
        check_placeholders(turns, len(request.pictures), f"{request.place}: ")


class AnswerFile:
    """Answers, a JSON object a line, in the order of their requests.

    They are written beside the final name and renamed when all are there; what a stopped program
    leaves is called `<name>.partial`.

    Args:
        path: the final name.

    Raises:
        ValueError: if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._partial = path, path.with_name(f"{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._partial.open("w", encoding="utf-8")
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {error.strerror}.") from error

    def write(self, request: Request, answer: Answer) -> None:
        """Add one."""
        self._file.write(answer_line(request, answer) + "\n")
        self._file.flush()

    def finish(self) -> None:
        """Give it its name."""
        self._file.close()
        os.replace(self._partial, self.path)


def answer_line(request: Request, answer: Answer) -> str:
    """A request and its answer as a JSON object."""
    said = {"answer": answer.text, "tokens": answer.tokens, "finished": answer.finished}
    asked = {**request.fields, "prompt": request.prompt, "seed": request.seed}
    return json.dumps(asked | said, ensure_ascii=False)


def requests_of(
    prompt: str | None,
    pictures: Sequence[Path],
    folder: Path | None,
    prompts: Path | None,
    seed: int,
) -> list[Request]:
    """What the command line asks for.

    Raises:
        ValueError: if its words contradict each other, or one of them would be ignored.
    """
    if (prompt is None) == (prompts is None):
        raise ValueError(
            "one of --prompt and --prompts says what is asked: give a text, or a file with one "
            "JSON object a line."
        )
    if prompts is not None:
        if pictures:
            raise ValueError("--image would be ignored: the lines of --prompts name their own.")
        return read_prompts(prompts, folder, seed)
    assert prompt is not None
    if folder is not None:
        if pictures:
            raise ValueError("--image and --image-dir exclude each other: name files or a folder.")
        return of_folder(folder, prompt, seed)
    named = {"images": [str(path) for path in pictures]} if pictures else {}
    request = Request("--prompt", prompt, tuple(pictures), seed, named)
    check_request(request)
    return [request]
