# SPDX-License-Identifier: MIT
"""A program with a known tree of tasks says of each what it is, where it is and what it waits for; `pyspyd dump --async`
must say the same. Names and waits are the program's own table, stacks what its coroutines say (cr_await)."""

import json
import sys
import time

import live

MOVING_LOOKS = 10
MOVING_S = 30

PROGRAM = r'''
import asyncio, json, os, sys, threading, types

FOREVER = 3600
NEW = sys.version_info
table = {}  # task: what it must be


def put(name, coroutine, kind=None, targets=(), holders=(), timed=False, loop=None, python=False):
    loop = loop or asyncio.get_running_loop()
    task = asyncio.tasks._PyTask(coroutine, loop=loop, name=name) if python else loop.create_task(coroutine, name=name)
    table[task] = [kind, targets, holders, timed]
    return task


async def on(thing):
    return await thing


async def nap():
    await asyncio.sleep(FOREVER)


async def keep(manager, thing):
    async with manager:
        await thing


async def enter(manager):
    async with manager:
        pass


async def took(lock):
    await lock.acquire()
    await nap()


async def notified(condition):
    async with condition:
        await condition.wait()


async def circle(others, name):
    await others[name]


async def numbers(thing):
    yield 1
    await thing


async def each(thing):
    async for _ in numbers(thing):
        pass


async def group(event):
    async with asyncio.TaskGroup() as tasks:
        put_child = lambda name: table.setdefault(tasks.create_task(on(event.wait()), name=name),
                                                  ["event", (), (), False])
        put_child("grouped-1")
        put_child("grouped-2")


async def limited(thing):
    async with asyncio.timeout(FOREVER):
        await thing


async def unlimited(thing):
    async with asyncio.timeout(None):
        await thing


def plant(loop):
    event, lock, inner, semaphore = asyncio.Event(), asyncio.Lock(), asyncio.Lock(), asyncio.Semaphore(1)
    done = put("done", asyncio.sleep(0))
    put("sleeper", nap(), "sleep", timed=True)
    put("event", on(event.wait()), "event")
    put("python", on(event.wait()), "event", python=True)
    put("future", on(loop.create_future()), "future")
    put("get", on(asyncio.Queue().get()), "queue")
    put("each", each(event.wait()), "event")
    put("condition", notified(asyncio.Condition()), "condition")
    put("holder", keep(lock, event.wait()), "event")
    put("lock-1", enter(lock), "lock", holders=["holder"])
    put("lock-2", on(lock.acquire()), "lock", holders=["holder"])
    put("taker", took(inner), "sleep", timed=True)
    put("taken", enter(inner), "lock", holders=["taker"])
    put("inside", keep(semaphore, nap()), "sleep", timed=True)
    put("outside", enter(semaphore), "semaphore", holders=["inside"])
    a, b = put("child-1", nap(), "sleep", timed=True), put("child-2", on(event.wait()), "event")
    put("awaits", on(a), "task", ["child-1"])
    put("gather", on(asyncio.gather(a, b, done, a)), "gather", ["child-1", "child-2"])
    put("wait", on(asyncio.wait([a, b, done])), "wait", ["child-1", "child-2"])
    put("wait timed", on(asyncio.wait([a], timeout=FOREVER)), "wait", ["child-1"], timed=True)
    put("wait_for task", asyncio.wait_for(a, FOREVER), *(("task",) if NEW >= (3, 12) else ("wait_for",)),
        ["child-1"], timed=True)
    put("wait_for", on(asyncio.wait_for(event.wait(), FOREVER)),
        *(("event", ()) if NEW >= (3, 12) else ("wait_for", ["its own"])), timed=True)
    put("wait_for ever", on(asyncio.wait_for(event.wait(), None)), "event")
    chain = put("chain-3", on(loop.create_future()), "future")
    chain = put("chain-2", on(chain), "task", ["chain-3"])
    put("chain-1", on(chain), "task", ["chain-2"])
    put("resumed", on(wake))
    others = {}
    others["circle-1"] = put("circle-1", circle(others, "circle-2"), "task", ["circle-2"])
    others["circle-2"] = put("circle-2", circle(others, "circle-1"), "task", ["circle-1"])
    if NEW >= (3, 11):
        put("group", group(event), "taskgroup", ["grouped-1", "grouped-2"])
        put("barrier", on(asyncio.Barrier(2).wait()), "barrier")
        put("limited", limited(event.wait()), "event", timed=True)
        put("unlimited", unlimited(event.wait()), "event")


# Its own account

INNER = (types.CoroutineType, types.GeneratorType)


def stack(task):
    names, thing = [], task._coro
    while thing is not None:
        for p in ("cr", "gi", "ag"):
            if hasattr(thing, p + "_frame"):
                names.insert(0, getattr(thing, p + "_code").co_name)
                thing = getattr(thing, {"gi": "gi_yieldfrom"}.get(p, p + "_await"))
                break
        else:
            if type(thing).__name__ == "async_generator_asend":
                import gc
                thing = next(x for x in gc.get_referents(thing) if type(x).__name__ == "async_generator")
            else:
                thing = None
    return names


def state(task):
    if task is asyncio.current_task():
        return "running"
    return "ready" if task._fut_waiter is None or task._fut_waiter.done() else "waiting"


def tell():
    told = []
    for loop in loops:
        tasks = asyncio.all_tasks(loop)
        tasks |= getattr(asyncio.tasks, "_py_all_tasks", asyncio.all_tasks)(loop)
        for task in tasks:
            name = task.get_name() if task in table else "its own"
            kind, targets, holders, timed = table.get(task, ["event", (), (), False])
            told.append({"name": name, "address": hex(id(task)), "loop": hex(id(loop)), "stack": stack(task),
                         "state": state(task), "kind": kind, "tasks": sorted(targets), "holders": list(holders),
                         "timed": timed})
    print(json.dumps({"tasks": told, "loops": [hex(id(l)) for l in loops]}), flush=True)
    os.read(0, 1)


async def main():
    global wake
    loop = asyncio.get_running_loop()
    table[asyncio.current_task()] = [None, (), (), False]
    asyncio.current_task().set_name("main")
    wake = loop.create_future()
    plant(loop)
    for _ in range(10):
        await asyncio.sleep(0)
    wake.set_result(1)
    put("not started", nap())
    tell()


async def stopped_main(loop):
    put("left", nap(), "sleep", timed=True, loop=loop)
    await asyncio.sleep(0)


def run_other():
    loops[1].call_soon(other_runs.set)
    table[loops[1].create_task(nap(), name="other")] = ["sleep", (), (), True]
    loops[1].run_forever()


other_runs = threading.Event()
loops = [asyncio.new_event_loop() for _ in range(3)]
loops[2].run_until_complete(stopped_main(loops[2]))
threading.Thread(target=run_other, daemon=True, name="other loop").start()
other_runs.wait()
asyncio.set_event_loop(loops[0])
loops[0].run_until_complete(main())
'''

MOVING = r'''
import asyncio

async def branch(queue, depth):
    if depth:
        await asyncio.gather(*(branch(queue, depth - 1) for _ in range(3)))
    else:
        await asyncio.sleep(0)
        await queue.put(1)
        await queue.get()

async def main():
    queue = asyncio.Queue()
    print("ready", flush=True)
    while True:
        await asyncio.gather(branch(queue, 4))

asyncio.run(main())
'''

PLAIN = "import os; print('ready', flush=True); os.read(0, 1)"


def account(told):
    return {task["name"]: task for task in told["tasks"]}


def named(address, told):
    """The tasks that pyspyd saw, by the names of the account: those of wait_for have none of their own."""
    return next((task["name"] for task in told["tasks"] if task["address"] == address), "?")


def seen(task, tasks, told):
    def names(others):
        return [named(tasks[other["id"]]["address"], told) for other in others]

    wait = task["waits_for"]
    return {"name": named(task["address"], told), "address": task["address"], "loop": task["loop"],
            "stack": [frame["function"] for frame in task["stack"]], "state": task["state"],
            "kind": wait.get("kind"), "tasks": sorted(names(wait.get("tasks", ()))),
            "holders": names(wait.get("holders", ())), "timed": wait.get("timed", False)}


def differences(dumped, told):
    expected, found = account(told), {t["name"]: t for t in (seen(t, dumped["tasks"], told) for t in dumped["tasks"])}
    wrong = ["%s: told %s, seen %s" % (name, expected.get(name), found.get(name))
             for name in sorted(set(expected) | set(found)) if expected.get(name) != found.get(name)]
    for task in dumped["tasks"]:
        awaiters = [t["id"] for t in dumped["tasks"]
                    if task["id"] in [other["id"] for other in t["waits_for"].get("tasks", ())]]
        if awaiters != [a["id"] for a in task["awaiters"]]:
            wrong.append("awaiters of %s: %s" % (task["name"], task["awaiters"]))
    loops = {loop["address"]: loop for loop in dumped["loops"]}
    main, other, stopped = (loops.get(address, {}) for address in told["loops"])
    if len(loops) != 3 or main.get("polling") or not other.get("polling") or stopped.get("tid", 0) is not None:
        wrong.append("loops: %s" % dumped["loops"])
    if sum(loop["tasks"] for loop in dumped["loops"]) != len(dumped["tasks"]):
        wrong.append("tasks of loops: %s" % dumped["loops"])
    return wrong


def check_json(checks, name, target, told):
    dumped, how = live.dump(target.pid, "--async")
    wrong = [how] if dumped is None else differences(dumped, told)
    for line in wrong:
        live.note("     " + line)
    checks.that(not wrong, "%s: %d differences" % (name, len(wrong)))
    blocking, how = live.dump(target.pid, "--async", "--blocking")
    if blocking is not None:  # not permitted where another tracer is
        checks.that(len(blocking["tasks"]) == len(told["tasks"]), "%s: with --blocking: %s" % (name, how))


def check_text(checks, name, target, told):
    status, text, err = live.pyspyd("dump", "--async", "--pid", target.pid)
    tree = text[text.find("Event loop"):].splitlines()
    full = [line.lstrip(" |`-") for line in tree if ": " in line and "Event loop" not in line]
    checks.that(status == 0 and not err, "%s: exit %d: %s" % (name, status, err))
    for task in told["tasks"]:
        if task["name"] != "its own":
            n = sum(line.startswith(task["name"] + ": ") and "the circle" not in line for line in full)
            checks.that(n == 1, "%s: %s is told %d times:\n%s" % (name, task["name"], n, "\n".join(tree)))
    checks.that(sum("the circle closes" in line for line in tree) == 1, "%s: circle" % name)
    checks.that(any("lock-1: enter" in line and "held by holder" in line for line in tree), "%s: holder" % name)
    checks.that(any("|  `- chain-3: on" in line or "   `- chain-3: on" in line for line in tree), "%s: chain" % name)
    checks.that("no thread runs it" in text and text.count("Event loop 0x") == 3, "%s: loops" % name)


def waits_alone(task):
    return task["state"] == "waiting" and not task["awaiters"]


def check_moving(checks, name, command):
    """Tasks come and go by the thousand. At one moment, whatever waits is waited for by another one, up to main."""
    with live.Target(command, MOVING) as target:
        target.ready()
        looks, good = [], 0
        end = time.monotonic() + MOVING_S
        # A thread that has got no CPU for 100 ms is not waited for until it stops: the machine may be busy.
        while time.monotonic() < end and (len(looks) < MOVING_LOOKS or good <= len(looks) / 2):
            status, _, err = live.pyspyd("dump", "--async", target.pid)
            checks.that(status == 0, "%s: moving: exit %d: %s" % (name, status, err))
            dumped, how = live.dump(target.pid, "--async", "--blocking")
            if dumped is None and how.startswith("exit 4"):
                live.note("%s: not looked at while stopped: %s" % (name, how))
                return
            if not checks.that(dumped is not None, "%s: moving: %s" % (name, how)):
                return
            if not dumped["counters"]["tasks_truncated"]:  # else a set was being changed
                alone = [task["name"] for task in dumped["tasks"] if waits_alone(task)]
                running = [task["name"] for task in dumped["tasks"] if task["state"] == "running"]
                looks.append((alone, running))
                good += len(alone) <= 1 and len(running) <= 1
        checks.that(len(looks) >= MOVING_LOOKS and good > len(looks) / 2, "%s: moving: who waits for nobody's sake, who runs: %s" % (name, looks))


def check_plain(checks, name, command):
    with live.Target(command, PLAIN) as target:
        target.ready()
        status, text, _ = live.pyspyd("dump", "--async", target.pid)
        checks.that(status == 0 and text.endswith("\n\nno event loop\n"), "%s: plain: %s" % (name, text))
        dumped, how = live.dump(target.pid, "--async")
        checks.that(dumped and dumped["loops"] == [] and dumped["tasks"] == [], "%s: plain: %s" % (name, how))
        dumped, how = live.dump(target.pid)
        checks.that(dumped and "tasks" not in dumped, "%s: not asked for: %s" % (name, how))
        pid = target.pid
    checks.that(live.pyspyd("dump", "--async", pid)[0] == 3, "%s: a process that has ended" % name)


def main():
    checks = live.Checks()
    for name, version, command in live.interpreters():
        before = checks.passed, checks.failed
        check_plain(checks, name, command)
        if version >= (3, 8):
            with live.Target(command, PROGRAM, stderr=sys.stderr) as target:
                told = json.loads(target.ready_and_resting())
                check_json(checks, name, target, told)
                check_text(checks, name, target, told)
            check_moving(checks, name, command)
        live.note("%s: %d checks passed, %d failed" % (name, checks.passed - before[0], checks.failed - before[1]))
    checks.end()


main()
