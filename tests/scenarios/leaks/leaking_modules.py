# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: sys.modules: dict
"""Each template is compiled into a module of its own, which sys.modules keeps."""
import sys
import time
import types


def load_template(number):
    name = "templates.page_%d" % number
    module = types.ModuleType(name)
    exec("title = 'page'\ndef render(text):\n    return title + text\n", module.__dict__)
    sys.modules[name] = module


print("ready", flush=True)
for step in range(8000):
    for number in range(18):
        load_template(step * 18 + number)
    time.sleep(0.01)
time.sleep(3600)
