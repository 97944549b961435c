/* SPDX-License-Identifier: MIT */
// A C++ program for native_oracle.py: waits in a destructor while an exception is on its way, or where it is not caught.
#include <cstdio>
#include <exception>
#include <string>
#include <unistd.h>
#include <vector>

namespace known {

__attribute__((noipa)) void wait() {
	char byte;

	if (write(1, "ready\n", 6) == 6)
		while (read(0, &byte, 1) > 0)
			;
	__asm__ volatile("" ::: "memory");
}

struct Waiter {
	__attribute__((noipa)) ~Waiter() {
		wait();
		__asm__ volatile("" ::: "memory");
	}
};

template <typename T> __attribute__((noipa)) void thrower(const std::vector<T> &items) {
	throw std::string(items.size(), 'x');
}

__attribute__((noipa)) void unwinding() {
	std::vector<int> items{ 1, 2, 3 };
	Waiter waiter;

	thrower(items);
}

}

int main(int argc, char **) {
	if (argc > 1)
		std::set_terminate([] {
			known::wait();
			_exit(0);
		});
	else
		try {
			known::unwinding();
		} catch (const std::string &) {
			return 0;
		}
	known::thrower(std::vector<int>{ 1 });
}
