# SPDX-License-Identifier: MIT
# expect: none
# Iterators are taken to their ends by hand, and asked for attributes that few have.
def numbers():
    yield 1
    yield 2


print("ready")
while True:
    items = numbers()
    while True:
        try:
            next(items)
        except StopIteration:
            break
    for i in range(50):
        hasattr(items, "send")
