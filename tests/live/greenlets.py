# SPDX-License-Identifier: MIT
"""A program with suspended greenlets says where each of them is; `pyspyd waits` must say the same of them, and nothing of
one that runs, has not begun or has ended."""

import json
import subprocess

import live

PROGRAM = r'''
import gc, json, sys, threading
import greenlet


class Own(greenlet.greenlet):
    pass


def leave(n):
    greenlet.getcurrent().parent.switch(n)


def work(n):
    leave(n)


def serve(kinds, said):
    suspended = [kinds[i % len(kinds)](work) for i in range(6)]
    for i, one in enumerate(suspended):
        one.switch(i)
    if said:
        gc.collect()  # some are on the list of the old ones
    suspended += [kinds[i % len(kinds)](work) for i in range(3)]
    for one in suspended[6:]:
        one.switch(0)
    hub = greenlet.greenlet(rest)
    hub.switch(said, suspended + [greenlet.getcurrent()])


def place(one):
    return [hex(id(one)), one.gr_frame.f_code.co_name, one.gr_frame.f_lineno]


def rest(said, suspended):
    said.extend(suspended)
    if threading.current_thread() is threading.main_thread():
        print(json.dumps([place(one) for one in said]), flush=True)
        sys.stdin.read()
    else:
        done.set()
        threading.Event().wait()


ended = greenlet.greenlet(lambda: None)
ended.switch()
fresh = Own(work)
said = []
done = threading.Event()
threading.Thread(target=serve, args=([greenlet.greenlet], said), daemon=True).start()
done.wait()
serve([greenlet.greenlet, Own], said)
'''


def has_greenlet(command):
    return subprocess.run(command + ["-c", "import greenlet"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, timeout=live.COMMAND_S).returncode == 0


def check(checks, name, command):
    with live.Target(command, PROGRAM) as target:
        said = {address: (function, line) for address, function, line in json.loads(target.ready_and_resting())}
        status, out, err = live.pyspyd("waits", "--json", "--pid", target.pid)
    if not checks.that(status == 0, "%s: exit %d: %s" % (name, status, err)):
        return
    waits = json.loads(out)
    steps = [step for chain in waits["chains"] for step in chain["steps"] if step["kind"] == "greenlet"]
    seen = {step["name"].split()[-1]: (step["frame"]["function"], step["frame"]["line"]) for step in steps}
    checks.that(seen == said, "%s: %r, not %r" % (name, sorted(seen.items()), sorted(said.items())))
    checks.that(not waits["notes"], "%s: notes %r" % (name, waits["notes"]))


def main():
    checks = live.Checks()
    names = []
    for name, _, command in live.interpreters():
        if has_greenlet(command):
            names.append(name)
            check(checks, name, command)
    if not names:
        live.skip("no interpreter here has the module greenlet")
    live.note("with the module greenlet: %s" % ", ".join(names))
    checks.end()


if __name__ == "__main__":
    main()
