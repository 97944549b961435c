#!/bin/bash
# SPDX-License-Identifier: MIT
# The Debian package through its life: built, checked by lintian, installed in a Debian 12 tree, upgraded, removed,
# purged. Then `make install` and `make uninstall` in a folder of their own.
set -u
cd "$(dirname "$0")/../.." || exit 1
export BUILD="${BUILD:-build}"
failures=0

skip() {
	echo "$1"
	exit 77
}

[ "$(id -u)" = 0 ] || skip "needs root"
for tool in dh lintian mmdebstrap; do
	command -v "$tool" >/dev/null || skip "needs $tool (tools/install-deps test)"
done

unshare --mount --pid --fork true 2>/dev/null || skip "no mount namespaces here"

work=$(mktemp -d) || exit 1
chmod 755 "$work"
tree=$work/tree
trap 'rm -rf "$work"' EXIT

fail() {
	echo "FAIL: $*"
	failures=$((failures + 1))
}

# With a /proc, which systemd-tmpfiles needs, in namespaces that end with the command.
inside() {
	DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 \
		unshare --mount --pid --fork --kill-child --root="$tree" --mount-proc "$@" </dev/null
}

# in_tree COMMAND…: what it prints is shown where it fails.
in_tree() {
	inside "$@" >"$work/log" 2>&1 || {
		fail "in the tree: $*"
		tail -n 20 "$work/log" | sed 's/^/  | /'
		return 1
	}
}

# is PATH "MODE OWNER:GROUP", seen from inside.
is() {
	local got
	got=$(inside stat -c '%a %U:%G' "$1" 2>&1)
	[ "$got" = "$2" ] || fail "$1 is $got, not $2"
}

there() {
	for path; do
		[ -e "$tree$path" ] || [ -L "$tree$path" ] || fail "$path is missing"
	done
}

gone() {
	for path; do
		if [ -e "$tree$path" ] || [ -L "$tree$path" ]; then fail "$path is still there"; fi
	done
}

wanted=/etc/systemd/system/multi-user.target.wants/pyspyd.service

check_built() {
	local parts=${deb##*/}
	[ -e "$BUILD/deb/pyspyd-dbgsym_${parts#pyspyd_}" ] || fail "no package with debug information"
	lintian --allow-root --fail-on error,warning "${deb%.deb}.changes" >"$work/log" 2>&1 || {
		fail "lintian"
		cat "$work/log"
	}
}

check_installed() {
	local version page
	version=$(sed -n 's/^#define PYSPYD_VERSION "\(.*\)"$/\1/p' include/pyspyd/version.h)
	[ "$(inside pyspyd --version)" = "pyspyd $version" ] || fail "pyspyd --version in the tree"
	in_tree ldd -r /usr/bin/pyspyd && ! grep -E 'not found|undefined' "$work/log" || fail "the program lacks a library"
	is /usr/bin/pyspyd "755 root:root"
	is /etc/pyspyd/pyspyd.conf "644 root:root"
	is /etc/pyspyd/pyspyd.conf.d "755 root:root"
	is /etc/logrotate.d/pyspyd "644 root:root"
	is /lib/systemd/system/pyspyd.service "644 root:root"
	is /var/lib/pyspyd "$(stat -c %a "$tree/var/lib/pyspyd" 2>/dev/null) pyspyd:pyspyd"
	is /var/log/pyspyd "$(stat -c %a "$tree/var/log/pyspyd" 2>/dev/null) pyspyd:pyspyd"
	for path in /var/lib/pyspyd /var/log/pyspyd; do
		case $(stat -c %A "$tree$path") in
		d????w* | d???????w*) fail "$path can be written by others" ;;
		*---) ;;
		*) fail "$path can be read by all" ;;
		esac
	done
	for page in docs/man/*.[15]; do
		gzip -t "$tree/usr/share/man/man${page##*.}/${page##*/}.gz" || fail "the manual lacks ${page##*/}"
	done
	there /usr/share/bash-completion/completions/pyspyd /usr/share/zsh/vendor-completions/_pyspyd \
		/usr/share/fish/vendor_completions.d/pyspyd.fish /usr/share/doc/pyspyd/README.md.gz "$wanted"
	grep -q '^ExecStart=/usr/bin/pyspyd ' "$tree/lib/systemd/system/pyspyd.service" || fail "the unit starts something else"
	in_tree getent group pyspyd
	case $(inside getent passwd pyspyd) in
	pyspyd:*:/usr/sbin/nologin | pyspyd:*:/bin/false) ;;
	*) fail "there is no user pyspyd, or he can log in" ;;
	esac
	# systemd's own trigger has made the catalog anew.
	in_tree journalctl --list-catalog && grep -q ' pyspyd: ' "$work/log" || fail "the journal's catalog has nothing of pyspyd"
	in_tree systemd-analyze --man=no verify /lib/systemd/system/pyspyd.service
	in_tree logrotate --debug /etc/logrotate.d/pyspyd
	in_tree bash -n /usr/share/bash-completion/completions/pyspyd
	if inside pyspyd daemon --help >/dev/null 2>&1; then
		in_tree pyspyd daemon --check-config
	else
		echo "this pyspyd has no command daemon: its configuration was not checked"
	fi
}

# The same package with a higher version.
make_newer() {
	dpkg-deb -R "$deb" "$work/newer" &&
		sed -i 's/^Version: .*/&+newer/' "$work/newer/DEBIAN/control" &&
		dpkg-deb -b "$work/newer" "$tree/opt/newer.deb" >/dev/null || fail "cannot make a newer package"
}

check_life() {
	in_tree dpkg -i /opt/pyspyd.deb || return
	check_installed

	# What the operator and the service have written stays in an upgrade, and a service that was switched off stays off.
	echo '# mine' >>"$tree/etc/pyspyd/pyspyd.conf"
	echo '[watch]' >"$tree/etc/pyspyd/pyspyd.conf.d/mine.conf"
	in_tree install -o pyspyd -g pyspyd /dev/null /var/lib/pyspyd/pyspyd.db
	in_tree install -o pyspyd -g pyspyd /dev/null /var/log/pyspyd/findings.jsonl
	in_tree systemctl disable pyspyd.service
	in_tree dpkg -i /opt/newer.deb
	case $(inside dpkg-query -W -f '${db:Status-Status} ${Version}' pyspyd) in
	"installed "*+newer) ;;
	*) fail "the newer version is not installed" ;;
	esac
	grep -q '^# mine' "$tree/etc/pyspyd/pyspyd.conf" || fail "an upgrade has overwritten the configuration"
	there /var/lib/pyspyd/pyspyd.db /var/log/pyspyd/findings.jsonl
	gone "$wanted"
	in_tree systemctl enable pyspyd.service
	in_tree dpkg -i /opt/newer.deb
	there "$wanted"

	in_tree dpkg --remove pyspyd
	gone /usr/bin/pyspyd /lib/systemd/system/pyspyd.service /usr/share/doc/pyspyd
	there /etc/pyspyd/pyspyd.conf /var/lib/pyspyd/pyspyd.db /var/log/pyspyd/findings.jsonl
	in_tree dpkg -i /opt/newer.deb
	there /usr/bin/pyspyd "$wanted"

	rm "$tree/etc/pyspyd/pyspyd.conf.d/mine.conf"
	in_tree dpkg --purge pyspyd
	gone /usr/bin/pyspyd /etc/pyspyd /etc/logrotate.d/pyspyd /var/lib/pyspyd /var/log/pyspyd "$wanted"
	left=$(find "$tree" -xdev -name '*pyspyd*' ! -path "$tree/opt/*")
	[ -z "$left" ] || fail "left after a purge: $left"
	in_tree getent passwd pyspyd
	in_tree dpkg --audit
}

# -o all: what was built is installed as it is, whatever flags it was built with.
check_make_install() {
	local to=$work/root
	make --no-print-directory -o all install DESTDIR="$to" PREFIX=/opt/pyspyd >"$work/log" 2>&1 || {
		fail "make install"
		cat "$work/log"
		return
	}
	grep -q '^ExecStart=/opt/pyspyd/bin/pyspyd ' "$to/opt/pyspyd/lib/systemd/system/pyspyd.service" ||
		fail "the unit of make install starts something else"
	"$to/opt/pyspyd/bin/pyspyd" --version >/dev/null || fail "what make install has installed does not run"
	for file in sysusers.d/pyspyd.conf tmpfiles.d/pyspyd.conf systemd/catalog/pyspyd.catalog; do
		[ -s "$to/opt/pyspyd/lib/$file" ] || fail "make install lacks $file"
	done
	echo '# mine' >>"$to/etc/pyspyd/pyspyd.conf"
	make --no-print-directory -o all install DESTDIR="$to" PREFIX=/opt/pyspyd >/dev/null 2>&1 || fail "make install again"
	grep -q '^# mine' "$to/etc/pyspyd/pyspyd.conf" || fail "make install has overwritten the configuration"
	make --no-print-directory uninstall DESTDIR="$to" PREFIX=/opt/pyspyd >/dev/null || fail "make uninstall"
	left=$(cd "$to" && find . -type f | sort | tr '\n' ' ')
	[ "$left" = "./etc/logrotate.d/pyspyd ./etc/pyspyd/pyspyd.conf " ] || fail "make uninstall leaves $left"
}

deb=$(DEB_BUILD_OPTIONS=nocheck tools/build-deb 2>"$work/log") || {
	tail -n 60 "$work/log"
	fail "the package does not build"
	exit 1
}
check_built
base=$(tools/debian-tree bookworm 2>"$work/log") || skip "no Debian tree: $(tail -n 1 "$work/log")"
cp -a --reflink=auto "$base" "$tree" || exit 1
cp "$deb" "$tree/opt/pyspyd.deb" || exit 1
make_newer
check_life
check_make_install
[ "$failures" = 0 ] || { echo "$failures failures"; exit 1; }
