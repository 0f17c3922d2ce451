"""A runner that answers from a script: what subject it is says how. It notes each burst in the file in its options."""

import json
import os
import signal
import sys

words = dict(word.split("=", 1) for word in sys.argv[1:])
name, log = words["subject"], words["options"]


def note(text: str) -> None:
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{name} {text}\n")


def burst(number: int, samples: int) -> dict[str, object]:
    ns = {"ten": 10.0, "twenty": 20.0, "drifts": 10.0 + number}.get(name, 10.0)
    made = [[ns, 100, 0, 0] for _ in range(samples)]
    answer: dict[str, object] = {"samples": made, "line_ns": 0.0, "steal": 0}
    if name == "disturbed":  # all but one sample of each burst
        for sample in made[1:]:
            sample[:] = [9999.0, 100, 3, 50]
    elif name == "never_ours":
        for sample in made:
            sample[2] = 1
    elif name == "stolen":
        answer["steal"] = number % 2
        made[0][0] = 5555.0 if number % 2 else 10.0
    elif name == "refuses":
        for sample in made:
            sample[3] = 2
    elif name == "moves":  # near and far in turns; every third time it is moved meanwhile
        answer["line_ns"] = 40.0 if number % 2 else 200.0
        answer["line_after_ns"] = 200.0 if number % 3 == 0 else answer["line_ns"]
        for sample in made:
            sample[0] = 30.0 if number % 2 else 90.0
    elif name == "nonsense":
        answer = {"samples": [[1.0]], "line_ns": 0.0, "steal": 0}
    elif name == "killed":
        sys.stderr.write("a word before it dies\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return answer


note("start")
print(json.dumps({"cannot": "not today"} if name == "cannot" else {"ready": {}}), flush=True)
number = 0
for line in sys.stdin:
    command, *arguments = line.split()
    if command == "check":
        note("check")
        fault = "two owners" if name == "faulty" else None
        print(json.dumps({"checked": int(arguments[0]), "refused": 0, "fault": fault}), flush=True)
    else:
        note("run")
        number += 1
        print(json.dumps(burst(number, int(arguments[0]))), flush=True)
note("end")
