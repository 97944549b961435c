# SPDX-License-Identifier: MIT
# expect: exception-storm
# says: KeyError|RuntimeError
# An error passes many calls, and becomes another one on its way.
def down(n):
    if n:
        return down(n - 1)
    raise KeyError("leaf")


def load():
    try:
        down(15)
    except KeyError as error:
        raise RuntimeError("no leaf") from error


print("ready")
while True:
    try:
        load()
    except RuntimeError:
        pass
