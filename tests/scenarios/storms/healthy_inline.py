# SPDX-License-Identifier: MIT
# expect: none
# The same, in the except block itself.
print("ready")
while True:
    try:
        {}["missing"]
    except KeyError:
        total = 0
        for i in range(5000):
            total += i * i
