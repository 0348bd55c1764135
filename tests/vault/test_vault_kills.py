"""kill -9 at any event of the file system: the same command goes on, and no salts are left over."""

import json
from pathlib import Path

import pytest
from small_owner import Owner, python

STEPS = 2
"""Parts of the moments, each a test of its own."""

KILLED = """
import json, os, sys
from pathlib import Path
import torch
from clients.vault.command import main
from small_owner import Owner

EVENTS = ("open", "mkdir", "rename", "replace", "link", "unlink", "rmdir", "fsync")
torch.set_num_threads(1)
root, place, part, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
sys.stderr = sys.stdout = open(os.devnull, "w")
count = 0

def watch(moment):
    '''Have this process die at an event, as by kill -9: nothing is tidied up.'''
    def watched(real, is_open):
        def event(*arguments, **options):
            global count
            if not is_open or (len(arguments) > 1 and arguments[1] & (os.O_WRONLY | os.O_RDWR)):
                count += 1
                if count == moment:
                    os._exit(9)
            return real(*arguments, **options)
        return event
    for name in EVENTS:
        setattr(os, name, watched(getattr(os, name), name == "open"))

def child(work):
    '''Status of a child, which has the imports and no threads; what it says besides.'''
    reader, writer = os.pipe()
    number = os.fork()
    if number == 0:
        status = work()
        os.write(writer, str(count).encode())
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), int(text or 0)

def tried(name, moment):
    '''Die at a moment, go on, verify.'''
    folder = place / name
    folder.mkdir()
    owner = Owner(root, folder, None)
    owner.configure(arms=["per-client", "per-image-derived"])
    vault = ["--vault", str(owner.vaults), "--client", "aachen"]
    encrypt = ["encrypt", *vault, *owner.encrypt_options(), *sys.argv[5:]]
    main(["new", *vault])
    owner.lower_floor()
    def dying():
        watch(moment)
        return main(encrypt)
    died, events = child(dying)
    again = child(lambda: main(encrypt))[0]
    check = ["verify", "--node", str(owner.node), "--vault", str(owner.vaults)]
    return owner, events, [died, again, child(lambda: main(check))[0]]

def state(owner):
    records = {path.stem for path in (owner.vault / "manifests").glob("*.json")}
    manifests = [json.loads(p.read_text()) for p in owner.node.glob("shards/*/manifest.json")]
    left = [str(p) for p in (*owner.node.rglob(".*"), *owner.vault.rglob(".*"))]
    left += [str(p) for p in owner.vault.glob("drafts")]
    return {"records": len(records), "used": {m["record"] for m in manifests} == records,
            "left": left}

_, number, _ = tried("whole", 0)
found = {}
for moment in range(1 + part, number + 1, steps * 3):
    owner, _, statuses = tried(str(moment), moment)
    found[moment] = {"statuses": statuses, **state(owner)}
sys.__stdout__.write(json.dumps({"events": number, "found": found}))
"""


@pytest.mark.parametrize("part", range(STEPS))
def test_killed_at_any_moment_it_goes_on_and_leaves_no_third_record(
    part: int, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "agreement"
    place.mkdir()
    owner = Owner(scenes, place, capsys)
    owner.configure(arms=["per-client", "per-image-derived"])
    assert owner.keys("new")[0] == 0
    arguments = (scenes, tmp_path, part, STEPS, *owner.agreement())
    process = python(KILLED, *arguments, env={"OMP_NUM_THREADS": "1"})
    out, error = process.communicate(timeout=280)
    assert process.returncode == 0, error
    tried = json.loads(out)
    assert tried["events"] > 40 and len(tried["found"]) >= 4
    for moment, found in tried["found"].items():
        wanted = {"statuses": [9, 0, 0], "records": 2, "used": True, "left": []}
        assert found == wanted, f"killed at event {moment} of {tried['events']}"
