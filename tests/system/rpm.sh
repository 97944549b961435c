#!/bin/bash
# SPDX-License-Identifier: MIT
# The RPM package: built from a copy of the tree, looked into, unpacked and started. Dependencies are not looked at: they
# have the names of other distributions.
#
# RPM_BUILD=yes   compiles in rpmbuild, with its flags; else the package gets the program that is built already
set -u
cd "$(dirname "$0")/../.." || exit 1
PYSPYD="${PYSPYD:-build/pyspyd}"
for tool in rpmbuild rpmspec rpm2cpio cpio; do
	command -v "$tool" >/dev/null || { echo "needs $tool (tools/install-deps test)"; exit 77; }
done
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
	echo "FAIL: $*"
	failures=$((failures + 1))
}

version=$(sed -n 's/^Version: *//p' packaging/pyspyd.spec)
mkdir -p "$work/SOURCES" "$work/root"
tarball=$work/SOURCES/pyspyd-$version.tar
find . \( -path ./.git -o -path ./build -o -path ./cache -o -name __pycache__ \) -prune -o -type f -print0 |
	tar -c --null -T - --transform "s,^\./,pyspyd-$version/," -f "$tarball" || exit 1
compile=()
if [ "${RPM_BUILD:-}" != yes ]; then
	tar -r -f "$tarball" --transform "s,.*,pyspyd-$version/build/pyspyd," "$PYSPYD" 2>"$work/log" || exit 1
	compile=(--define "make_build true" --define "make_install make -o all install DESTDIR=%{buildroot}")
fi
gzip -1 "$tarball" || exit 1

# The macros of the machine's own user are not asked; nothing is left beside $work.
unset BUILD MAKEFLAGS MFLAGS MAKELEVEL PREFIX DESTDIR DEV SAN CFLAGS LDFLAGS
HOME=$work rpmbuild --quiet --nodeps -bb --define "_topdir $work" --define "_tmppath $work" \
	--define "_smp_mflags -j$(nproc)" "${compile[@]}" packaging/pyspyd.spec >"$work/log" 2>&1 || {
	tail -n 40 "$work/log"
	fail "the package does not build"
	exit 1
}
rpm=$(find "$work/RPMS" -name "pyspyd-$version-*.rpm" ! -name '*debug*')
[ -f "$rpm" ] || { fail "no package pyspyd-$version"; exit 1; }

rpm -qpl "$rpm" >"$work/files" 2>/dev/null
has() {
	for path; do
		grep -qx "$path" "$work/files" || fail "the package lacks $path"
	done
}
has /usr/bin/pyspyd /usr/lib/systemd/system/pyspyd.service /usr/lib/sysusers.d/pyspyd.conf \
	/usr/lib/tmpfiles.d/pyspyd.conf /usr/lib/systemd/catalog/pyspyd.catalog /etc/pyspyd/pyspyd.conf.d \
	/usr/share/bash-completion/completions/pyspyd /usr/share/zsh/site-functions/_pyspyd \
	/usr/share/fish/vendor_completions.d/pyspyd.fish '/usr/share/licenses/pyspyd.*/LICENSE'
for page in docs/man/*.[15]; do
	has "/usr/share/man/man${page##*.}/${page##*/}\(\.gz\)\?"
done
config=$(rpm -qpc "$rpm" 2>/dev/null | tr '\n' ' ')
[ "$config" = "/etc/logrotate.d/pyspyd /etc/pyspyd/pyspyd.conf " ] || fail "configuration files are $config"
rpm -qp --scripts "$rpm" >"$work/scripts" 2>/dev/null
for command in systemd-sysusers systemd-tmpfiles "journalctl --update-catalog"; do
	grep -q "^$command" "$work/scripts" || fail "the package does not call $command"
done
[ -z "$(rpm -qp --qf '[%{FILEUSERNAME}:%{FILEGROUPNAME}\n]' "$rpm" 2>/dev/null | grep -vx root:root)" ] ||
	fail "a file is not root's"

# What systemd's own macros would be asked for, where they are.
rpmspec -P --define 'systemd_post() post-of %1' --define 'systemd_preun() preun-of %1' \
	--define 'systemd_postun_with_restart() postun-of %1' packaging/pyspyd.spec >"$work/spec" || fail "rpmspec"
for script in post preun postun; do
	grep -qx "$script-of pyspyd.service" "$work/spec" || fail "no macro of systemd in %$script"
done

(cd "$work/root" && rpm2cpio "$rpm" | cpio -idm --quiet) || fail "the package cannot be unpacked"
[ "$("$work/root/usr/bin/pyspyd" --version)" = "pyspyd $version" ] || fail "the program does not run"
! ldd -r "$work/root/usr/bin/pyspyd" | grep -E 'not found|undefined' || fail "the program lacks a library"
grep -q '^ExecStart=/usr/bin/pyspyd ' "$work/root/usr/lib/systemd/system/pyspyd.service" ||
	fail "the unit starts something else"
[ "$failures" = 0 ]
