# SPDX-License-Identifier: MIT
# expect: none
"""Pre-forked workers read their orders from pipes; the parent waits for their answers, and for orders on its stdin."""
import os
import select


def work(orders, answers):
    while True:
        os.write(answers, os.read(orders, 1))


parents_end = []
for _ in range(2):
    order_r, order_w = os.pipe()
    answer_r, answer_w = os.pipe()
    if os.fork() == 0:
        os.close(order_w)
        os.close(answer_r)
        work(order_r, answer_w)
    os.close(order_r)
    os.close(answer_w)
    os.write(order_w, b".")
    os.read(answer_r, 1)
    parents_end.append((answer_r, order_w))
print("ready", flush=True)
select.select([0] + [answers for answers, _ in parents_end], [], [])
