# SPDX-License-Identifier: MIT
# expect: none
# The whole program runs in an except block.
def work():
    total = 0
    while True:
        total = (total * 31 + 7) % 1000003


print("ready")
try:
    import no_such_module_at_all
except ImportError:
    work()
