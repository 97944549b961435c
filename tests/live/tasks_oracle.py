# SPDX-License-Identifier: MIT
"""Runs event loops with tasks in every kind of wait and says of each what it is and what it waits for.

Runs on Python 3.8 and later, from its standard input. Tells what it has in several looks: lines, then "look", after which
nothing moves until a byte comes from descriptor 3 (the last look: the loops only poll). tasks_driver.c reads the lines and
compares them with what it sees in this process's memory. The first line is `start<TAB>PID`; the others:

    task ADDRESS NAME RUNNING LOOP WAITER KIND AWAITABLE PRIMITIVE TYPE FUNCTION,…
        waiter: the future or task that it waits for, kind: task, future or none; awaitable: what its innermost coroutine
        awaits where that is neither; primitive: of asyncio, its address and type (* : not compared); functions:
        innermost first
    future ADDRESS STATE TASK CHILD,…
    loop ADDRESS RUNNING_TASK POLLING READY SCHEDULED NEXT OVERDUE BEGAN INDEX HANDLE SELECTOR_FD SELF_PIPE_FD
"""

import asyncio
import gc
import os
import sys
import threading
import types

CHAIN_MAX = 64  # of the reader
FOREVER = 3600.0
made = {}  # task: (primitive or None)
keep = []
out = sys.stdout
out.reconfigure(encoding="utf-8")


def address(thing):
    return "%x" % (0 if thing is None else id(thing))


def tell(*fields):
    out.write("\t".join(str(f) for f in fields) + "\n")


# What a task is in, by its own account

INNER = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)
WRAPPERS = ("coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "anext_awaitable")


def awaited(thing):
    for attribute in ("cr_await", "gi_yieldfrom", "ag_await"):
        if hasattr(thing, attribute):
            return getattr(thing, attribute)
    for inner in gc.get_referents(thing):
        if isinstance(inner, INNER) or type(inner).__name__ in WRAPPERS:
            return inner
    raise TypeError(thing)


def frame_of(thing):
    for attribute in ("cr_frame", "gi_frame", "ag_frame"):
        if hasattr(thing, attribute):
            return getattr(thing, attribute)
    return None


def chain(coroutine):
    names, thing = [], coroutine
    while isinstance(thing, INNER) or type(thing).__name__ in WRAPPERS:
        if isinstance(thing, INNER):
            names.insert(0, frame_of(thing).f_code.co_name)
        thing = awaited(thing)
    if thing is None or asyncio.isfuture(thing) or type(thing).__name__ == "FutureIter":
        thing = None
    return names[:CHAIN_MAX], thing


def kind_of(future):
    return "none" if future is None else "task" if hasattr(future, "_coro") else "future"


def tell_task(task, running):
    names, awaitable = chain(task._coro)
    waiter = task._fut_waiter
    name = "Task-1" if task is main_task else task.get_name()  # asking for a name that is not made yet makes it
    primitive = made.get(task, "*")
    tell("task", address(task), name, int(task is running), address(task._loop), address(waiter), kind_of(waiter),
         address(awaitable), *(["*", "*"] if primitive == "*" else [address(primitive), primitive_name(primitive)]),
         ",".join(names))
    if waiter is not None:
        tell_future(waiter)


def primitive_name(primitive):
    return "-" if primitive is None else type(primitive).__name__


def tell_future(future):
    children = () if hasattr(future, "_coro") else getattr(future, "_children", ())
    tell("future", address(future), future._state, int(hasattr(future, "_coro")), ",".join(map(address, children)))


def run_once():
    frame = sys._getframe()
    while frame and frame.f_code.co_name != "_run_once":
        frame = frame.f_back
    return frame


def tell_loop(loop, running, polling):
    local = {} if polling else run_once().f_locals
    timers = [t for t in loop._scheduled if not t._cancelled]
    tell("loop", address(loop), address(running), int(polling), len(loop._ready), len(timers),
         "%.6f" % min([t._when for t in timers], default=-1), sum(t._when < loop.time() for t in timers),
         "%.6f" % local.get("end_time", -1), local.get("i", -1), address(local.get("handle")),
         loop._selector._selector.fileno(), loop._ssock.fileno())


def all_tasks(loop):
    """From 3.14 on those of Python classes are known to Python's part only."""
    tasks = asyncio.all_tasks(loop)
    return tasks.union(getattr(asyncio.tasks, "_py_all_tasks", asyncio.all_tasks)(loop))


def look(running=None, polling=False):
    """Tells everything."""
    for loop in (main_loop, other_loop):
        for task in all_tasks(loop):
            tell_task(task, running)
    tell_loop(other_loop, None, True)
    for future in keep:
        tell_future(future)
    tell_loop(main_loop, running, polling)
    tell("look")
    out.flush()
    if not polling:
        os.read(3, 1)


# Waits of every kind

class Parts:
    """What the tasks wait for."""

    def __init__(self, loop):
        self.loop = loop
        self.event = asyncio.Event()
        self.lock = asyncio.Lock()
        self.condition = asyncio.Condition()
        self.semaphore = asyncio.Semaphore(0)
        self.empty = asyncio.Queue()
        self.full = asyncio.Queue(1)
        self.full.put_nowait(1)
        self.busy = asyncio.Condition()
        self.future = loop.create_future()
        self.python_future = asyncio.futures._PyFuture(loop=loop)


class OwnTask(asyncio.Task):
    pass


class OwnFuture(asyncio.Future):
    pass


class ByGenerator:
    def __init__(self, future):
        self.future = future

    def __await__(self):
        return (yield from self.future)


class ByCoroutine(ByGenerator):
    def __await__(self):
        return wait_for_it(self.future).__await__()


class ByIterator(ByGenerator):
    def __await__(self):
        return self

    def __next__(self):
        self.future._asyncio_future_blocking = True
        return self.future


async def wait_for_it(thing):
    await thing


async def middle(thing):
    await wait_for_it(thing)


async def outer(thing):
    await middle(thing)


async def deep(thing, depth):
    if depth:
        await deep(thing, depth - 1)
    else:
        await thing


@types.coroutine
def old_style(future):
    yield from future


async def hold(lock):
    async with lock:
        await asyncio.sleep(FOREVER)


async def enter(lock):
    async with lock:
        pass


async def condition_wait(condition):
    async with condition:
        await condition.wait()


async def condition_wait_for(condition):
    async with condition:
        await condition.wait_for(lambda: False)


async def numbers(thing):
    yield 1
    await thing
    yield 2


async def closing(thing):
    try:
        yield 1
    finally:
        await wait_for_it(thing)


async def each(thing):
    async for _ in numbers(thing):
        pass


async def listed(thing):
    return [n async for n in numbers(thing)]


async def send(thing):
    generator = numbers(thing)
    await generator.asend(None)
    await generator.asend(None)


async def throw(thing):
    generator = closing(thing)
    await generator.asend(None)
    await generator.athrow(KeyError)


async def close(thing):
    generator = closing(thing)
    await generator.asend(None)
    await generator.aclose()


async def next_of(thing):
    generator = numbers(thing)
    await anext(generator)
    await anext(generator, None)


async def group(thing):
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(wait_for_it(thing), name="of the group")


async def yielding():
    while not stopping:
        await asyncio.sleep(0)


def make(name, coroutine, primitive=None, factory=None):
    loop = asyncio.get_running_loop()
    task = factory(coroutine, loop=loop, name=name) if factory else loop.create_task(coroutine, name=name)
    made[task] = primitive
    return task


def make_waits(p):
    make("sleep", asyncio.sleep(FOREVER))
    make("event", p.event.wait(), p.event)
    make("nested", outer(p.event.wait()), p.event)
    make("deep", deep(p.future, 100))
    make("holder", hold(p.lock))
    make("locked", enter(p.lock), p.lock)
    make("acquire", p.lock.acquire(), p.lock)
    make("semaphore", enter(p.semaphore), p.semaphore)
    make("condition", condition_wait(p.condition), p.condition)
    make("condition for", condition_wait_for(p.condition), p.condition)
    make("get", p.empty.get(), p.empty)
    make("put", wait_for_it(p.full.put(2)), p.full)
    make("join", p.full.join(), p.full)
    make("future", wait_for_it(p.future))
    make("own future", wait_for_it(OwnFuture(loop=p.loop)))
    make("own task", wait_for_it(p.future), factory=OwnTask)
    awaited_task = make("awaited", wait_for_it(p.future))
    make("task", wait_for_it(awaited_task))
    make("task in task", middle(made_task("task")))
    make("shield", wait_for_it(asyncio.shield(awaited_task)))
    make("gather", wait_for_it(asyncio.gather(awaited_task, p.future, p.loop.create_future())))
    make("wait", asyncio.wait([awaited_task]))
    make("wait for", asyncio.wait_for(wait_for_it(p.future), FOREVER))
    make("by generator", wait_for_it(ByGenerator(p.future)))
    make("by coroutine", wait_for_it(ByCoroutine(p.future)))
    make("by iterator", wait_for_it(ByIterator(p.loop.create_future())))
    make("old style", outer(old_style(p.future)))
    make("executor", wait_for_it(p.loop.run_in_executor(None, other_done.wait)))
    make("unicode \u0436 \U0001f40d", wait_for_it(p.future))
    make_generators(p)
    make_python(p)
    make_new(p)


def make_generators(p):
    make("each", each(p.event.wait()), p.event)
    make("listed", listed(p.event.wait()), p.event)
    make("send", send(p.future))
    make("throw", throw(p.future))
    make("close", close(p.future))
    if sys.version_info >= (3, 10):
        make("next", next_of(p.future))


def make_python(p):
    factory = asyncio.tasks._PyTask
    make("python future", wait_for_it(p.python_future))
    make("python task", outer(p.future), factory=factory)
    make("python both", outer(p.python_future), factory=factory)
    make("python's task", wait_for_it(made_task("python task")), factory=factory)
    make("task of python", wait_for_it(made_task("python task")))


def make_new(p):
    if sys.version_info >= (3, 11):
        barrier = asyncio.Barrier(2)
        make("barrier", barrier.wait(), barrier)
        task = make("group", group(p.future))
        groups.append(task)
    if sys.version_info >= (3, 12):
        for name, thing in (("eager", p.future), ("eager event", p.event.wait())):
            task = asyncio.eager_task_factory(p.loop, wait_for_it(thing), name=name)
            made[task] = p.event if "event" in name else None


def made_task(name):
    return next(task for task in made if task.get_name() == name)


# Looks

async def first_look(p):
    """As a task of its own, which is the running one; others are ready."""
    for task in groups:
        made[task] = task._coro.cr_frame.f_locals["tasks"]
    ready = make("resumed", wait_for_it(p.loop.create_future()))
    await asyncio.sleep(0)
    keep.extend((p.future, p.python_future, p.loop.create_future(), OwnFuture(loop=p.loop)))
    for _ in range(2):
        done = p.loop.create_future()
        keep.append(done)
    done.set_result(1)
    keep[-2].cancel()
    ready._fut_waiter.set_result(1)
    make("not started", outer(p.future))
    p.loop.call_later(FOREVER, print).cancel()
    p.loop.call_at(5, print).cancel()
    overdue = p.loop.call_at(6.5, print)
    for n in range(2000):
        keep_timers.append(p.loop.call_at(FOREVER * 1000 + n, print))
    for timer in keep_timers[100:]:
        timer.cancel()
    look(asyncio.current_task())
    overdue.cancel()


async def eager_look():
    look(asyncio.current_task())


def last_look():
    threading.Thread(target=end, daemon=True).start()
    look(polling=True)


async def main():
    global stopping
    p = Parts(main_loop)
    make_waits(p)
    make("yielding", yielding())
    for _ in range(8):
        await asyncio.sleep(0)
    await make("first look", first_look(p))
    if sys.version_info >= (3, 12):
        task = asyncio.eager_task_factory(main_loop, eager_look(), name="eager look")
        made[task] = None
    stopping = True
    for _ in range(8):
        await asyncio.sleep(0)
    main_loop.call_soon(last_look)
    await main_loop.create_future()


async def other_main():
    make("other", wait_for_it(other_loop.create_future()))
    other_loop.call_soon(other_done.set)
    await asyncio.sleep(FOREVER)


def run_other():
    asyncio.set_event_loop(other_loop)
    made[other_loop.create_task(other_main(), name="other main")] = None
    other_loop.run_forever()


def end():
    os.read(3, 1)
    os._exit(0)


stopping, groups, keep_timers = False, [], []
out.write("start\t%d\n" % os.getpid())
other_done = threading.Event()
main_loop, other_loop = asyncio.new_event_loop(), asyncio.new_event_loop()
threading.Thread(target=run_other, daemon=True).start()
other_done.wait()
other_done = threading.Event()
main_task = main_loop.create_task(main())
made[main_task] = None
asyncio.set_event_loop(main_loop)
main_loop.run_forever()
