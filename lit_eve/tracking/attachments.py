"""Pictures, tables and files of a spool as the artifacts that MLflow's pages look for.

Names depend on the event only, so an event that is sent again replaces its own files.

Source:
    file names and the two tags as `mlflow.tracking.client.MlflowClient.log_image` and `log_table`
    of MLflow 3.17 write them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from lit_eve.tracking.spool import Event

if TYPE_CHECKING:
    from mlflow import MlflowClient

IMAGES_TAG = "mlflow.loggedImages"
TABLES_TAG = "mlflow.loggedArtifacts"
MAX_TABLES = 80
"""Tables listed in the tag, whose value MLflow cuts at 8000 characters; older files stay."""

CARD_SIDE = 1280
THUMBNAIL_SIDE = 192


class Attachments:
    """Sends the files of one spool to one run."""

    def __init__(self, client: MlflowClient, run_id: str, folder: Path, uid: str) -> None:
        """Args: the client, the run, the spool's folder and its uid."""
        self.client = client
        self.run_id = run_id
        self.folder = folder
        self.uid = uid

    def image(self, event: Event) -> None:
        """A picture with key and step, and its smaller copy that the cards show."""
        source = self.folder / event["path"]
        name = uuid.uuid5(uuid.NAMESPACE_OID, f"{self.uid}/{event['key']}/{event['s']}")
        stem = f"{_image_key(event['key'])}+step+{event['s']}+timestamp+{event['t']}+{name}"
        with tempfile.TemporaryDirectory() as folder:
            shutil.copyfile(source, Path(folder) / f"{stem}.png")
            _smaller(source, Path(folder) / f"{stem}+compressed.webp", CARD_SIDE)
            self.client.log_artifacts(self.run_id, folder, "images")
        self.client.set_tag(self.run_id, IMAGES_TAG, "true")

    def table(self, event: Event) -> None:
        """The rows of one step as `<name>/step-...json`, and as `<name>.json` the newest rows."""
        name, step = event["key"], event["s"]
        rows = [row | {"step": step} for row in event["rows"]]
        pictures = f"table_images/{name}/{step:09d}"
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / pictures).mkdir(parents=True)
            (root / name).mkdir(parents=True)
            cells = [
                {k: self._cell(cell, root, pictures) for k, cell in row.items()} for row in rows
            ]
            columns = list(rows[0]) if rows else ["step"]
            data = [[row[column] for column in columns] for row in cells]
            text = json.dumps({"columns": columns, "data": data}, ensure_ascii=False)
            (root / name / f"step-{step:09d}.json").write_text(text, encoding="utf-8")
            (root / f"{name}.json").write_text(text, encoding="utf-8")
            self.client.log_artifacts(self.run_id, folder)
        self._list_tables([f"{name}.json", f"{name}/step-{step:09d}.json"])

    def file(self, event: Event) -> None:
        """A file of the run, or all files of a folder."""
        source = self.folder / event["path"]
        if source.is_dir():
            self.client.log_artifacts(self.run_id, str(source), event["to"] or None)
        else:
            self.client.log_artifact(self.run_id, str(source), event["to"] or None)

    def _cell(self, cell: object, root: Path, pictures: str) -> object:
        if not (isinstance(cell, dict) and "image" in cell):
            return cell
        source = self.folder / str(cell["image"])
        if not source.exists():
            return "(picture missing)"
        shutil.copyfile(source, root / pictures / source.name)
        thumbnail = f"{pictures}/{source.stem}.webp"
        _smaller(source, root / thumbnail, THUMBNAIL_SIDE, enlarge=True)
        return {
            "type": "image",
            "filepath": f"{pictures}/{source.name}",
            "compressed_filepath": thumbnail,
        }

    def _list_tables(self, paths: list[str]) -> None:
        """The tag that makes the UI show a file as a table."""
        tags = self.client.get_run(self.run_id).data.tags
        listed: list[dict[str, Any]] = json.loads(tags.get(TABLES_TAG, "[]"))
        new = [{"path": path, "type": "table"} for path in paths]
        listed = [entry for entry in listed if entry not in new] + new
        self.client.set_tag(self.run_id, TABLES_TAG, json.dumps(listed[-MAX_TABLES:]))


def _image_key(key: str) -> str:
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-./ ") else "_" for c in key)
    return plain.replace("/", "~")


def _smaller(source: Path, target: Path, side: int, enlarge: bool = False) -> None:
    """Save a copy whose longer side is at most `side`; tiny pictures grow by a whole factor."""
    with Image.open(source) as image:
        copy = image.convert("RGB")
        factor = side // max(copy.size)
        if enlarge and factor > 1:
            size = (copy.width * factor, copy.height * factor)
            copy = copy.resize(size, Image.Resampling.NEAREST)
        copy.thumbnail((side, side), Image.Resampling.LANCZOS)
        copy.save(target, format="WEBP", lossless=enlarge, quality=90)
