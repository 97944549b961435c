# SPDX-License-Identifier: MIT
# expect: deadlock|hang
# threads: relay, relay
# option: --hang-after 3
"""Two workers with a bounded queue each, both full, put into each other's."""
import queue
import threading

left, right = queue.Queue(2), queue.Queue(2)
for mailbox in (left, right, left, right):
    mailbox.put("letter")
started = threading.Barrier(3)


def relay(inbox, outbox):
    started.wait()
    while True:
        outbox.put("answer")
        inbox.get()


threads = [threading.Thread(target=relay, args=(left, right), name="left"),
           threading.Thread(target=relay, args=(right, left), name="right")]
for thread in threads:
    thread.start()
started.wait()
print("ready", flush=True)
for thread in threads:
    thread.join()
