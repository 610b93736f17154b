"""fetch-weights.py MODELS.json FOLDER

Fetches models from Hugging Face's hub into FOLDER, where agents look for weights, and prints the sha256 that a target must state for each: of one file
(a name that ends in .gguf), or of a checkpoint's folder as `vibeserve validate --checkpoint` has it. A name appears once everything is there and is as the
hub says; what is there under a name is never changed. A model that can't be had keeps no other one waiting: it ends with 1 then, and the reason of each in a
sentence.
"""

import fnmatch
import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from httpx2 import HTTPError

# Of the top folder: neither the same weights in another format nor code.
CHECKPOINT = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
# Mistral's copy of the same tensors by other names; an agent would read both.
COPIES = "consolidated*.safetensors"


def sha256_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def wanted(model, siblings):
    patterns = model.get("files")
    if patterns is None:
        patterns, siblings = CHECKPOINT, [s for s in siblings if "/" not in s.rfilename and not fnmatch.fnmatchcase(s.rfilename, COPIES)]
    found = [s for s in siblings if any(fnmatch.fnmatchcase(s.rfilename, pattern) for pattern in patterns)]
    if not found:
        raise SystemExit(f"{model['repository']} has no file like {', '.join(patterns)}")
    return found


def download(model, part):
    """Everything that is wanted, each file as the hub says; answers what holds it."""
    repository, revision = model["repository"], model["revision"]
    files = wanted(model, HfApi().model_info(repository, revision=revision, files_metadata=True).siblings)
    single = model["name"].endswith(".gguf")
    if single and len(files) != 1:
        raise SystemExit(f"{model['name']}: one file, and these fit: {', '.join(s.rfilename for s in files)}")

    def one(sibling):
        path = Path(hf_hub_download(repository, sibling.rfilename, revision=revision, local_dir=part))
        good = path.stat().st_size == sibling.size and (sibling.lfs is None or sha256_of(path) == sibling.lfs.sha256)
        if not good:
            path.unlink()
            raise SystemExit(f"{repository}: {sibling.rfilename} is not what the hub says it is; it is fetched again")
        print(f"{sibling.rfilename}: {sibling.size} bytes", flush=True)
        return path

    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(one, files))
    return paths[0] if single else part


def digest_of(path):
    if path.is_file():
        return sha256_of(path)
    answer = subprocess.run(["vibeserve", "validate", "--json", "--checkpoint", path], stdout=subprocess.PIPE, check=True).stdout
    return json.loads(answer)["checkpoint"]["sha256"]


def fetch(model, folder):
    name = model["name"]
    # Names that begin with "." are nobody's weights.
    wish = hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest()[:12]
    note, part = folder / f".{name}.json", folder / f".{name}.{wish}.part"
    if (folder / name).exists():
        before = json.loads(note.read_text()) if note.exists() else None
        if before is None or before["model"] != model:
            raise SystemExit(f"{folder / name} is there already, and not from {model}: choose another name, or remove it")
    else:
        found = download(model, part)
        before = {"model": model, "sha256": digest_of(found)}
        # Before the name, and whole: what was killed here is fetched again.
        draft = part.with_suffix(".note")
        draft.write_text(json.dumps(before))
        os.replace(draft, note)
        # What the library keeps for going on with a download.
        shutil.rmtree(part / ".cache", ignore_errors=True)
        os.rename(found, folder / name)
        shutil.rmtree(part, ignore_errors=True)
    print(f"{name}: sha256 {before['sha256']}", flush=True)


if __name__ == "__main__":
    missing = 0
    for entry in json.loads(Path(sys.argv[1]).read_text()):
        try:
            fetch(entry, Path(sys.argv[2]))
        # RuntimeError: of the library's own way to large files (Xet).
        except (HfHubHTTPError, HTTPError, OSError, RuntimeError, subprocess.CalledProcessError, SystemExit) as error:
            missing = 1
            print(f"{entry['name']}: {error}", file=sys.stderr, flush=True)
    sys.exit(missing)
