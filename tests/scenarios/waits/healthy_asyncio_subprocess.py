# SPDX-License-Identifier: MIT
# expect: none
# needs: program:sleep
"""asyncio waits for a child that sleeps."""
import asyncio


async def main():
    child = await asyncio.create_subprocess_exec("sleep", "3600")
    print("ready", flush=True)
    await child.wait()


asyncio.run(main())
