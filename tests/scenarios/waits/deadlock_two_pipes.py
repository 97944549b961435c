# SPDX-License-Identifier: MIT
# expect: deadlock
# threads: ask, answer
# option: --children
# certainty: proven
"""Two processes, two pipes: each reads what the other one would write."""
import os

question_r, question_w = os.pipe()
answer_r, answer_w = os.pipe()


def ask():
    os.close(question_r)
    os.close(answer_w)
    print("ready", flush=True)
    os.read(answer_r, 1)
    os.write(question_w, b"?")


def answer():
    os.close(question_w)
    os.close(answer_r)
    os.read(question_r, 1)
    os.write(answer_w, b"!")


if os.fork() == 0:
    answer()
else:
    ask()
