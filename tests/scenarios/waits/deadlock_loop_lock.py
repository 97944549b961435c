# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: on_message, publish
# holder: publisher
# says: state
"""A callback takes a threading.Lock that is held by a thread which waits for the loop."""
import asyncio
import threading

state = threading.Lock()
taken = threading.Event()


async def send():
    pass


def publish(loop):
    with state:
        reply = asyncio.run_coroutine_threadsafe(send(), loop)
        taken.set()
        reply.result()


def on_message():
    with state:
        pass


async def main():
    threading.Thread(target=publish, args=(asyncio.get_running_loop(),), name="publisher").start()
    taken.wait()
    print("ready", flush=True)
    on_message()


asyncio.run(main())
