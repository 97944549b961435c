# SPDX-License-Identifier: MIT
# expect: exception-storm
# says: ValueError
# Each of many texts is tried as a number, and none is one.
def number(text):
    try:
        return int(text)
    except ValueError:
        return None


print("ready")
while True:
    number("abc")
