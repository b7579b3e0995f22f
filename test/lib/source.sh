# shellcheck shell=bash disable=SC2154
#
# PostgreSQL from source, for builds that no distribution has. To be read
# after common.sh.

# Nothing is downloaded: who wants such a build has the source.
# shellcheck disable=SC2034 # it is for those who read this
source_packages=(
	bison flex gcc make libc6-dev pkg-config perl libipc-run-perl
	libreadline-dev zlib1g-dev libssl-dev libicu-dev
)

# version_of SOURCE
version_of() {
	sed -n "s/^PACKAGE_VERSION='\(.*\)'/\1/p" "$1/configure" 2>/dev/null | grep . ||
		die "there is no source of PostgreSQL in $1"
}

# build_postgres SOURCE PREFIX CFLAGS COPT [CONFIGURE_OPTION...]: unless it is
# there already; what it was made with is written into it, last. COPT is used
# for the build only, CFLAGS for extensions, too.
build_postgres() {
	local from=$1 prefix=$2 copt=$4 options made words build=$work/build

	options=(--enable-debug --enable-cassert --enable-tap-tests --with-openssl
		--with-icu "CFLAGS=$3" "${@:5}")
	made="$(version_of "$from") ${options[*]} $copt"
	made=${made//"$work"/}
	if [[ -e $prefix/made_with && $(<"$prefix/made_with") == "$made" ]]; then
		say "there already: $prefix"
		return
	fi
	[[ $prefix == /* ]] || die "not a full path: $prefix"
	[[ $prefix/ != "$root"/* ]] || die "$prefix lies in the tree"
	if [[ -e $prefix ]] && ! rmdir "$prefix" 2>/dev/null; then
		die "$prefix has something else in it"
	fi
	# configure refuses a build beside a source that was built in place.
	[[ ! -e $from/config.status ]] || die "$from was built in place: make distclean there first"
	say "building PostgreSQL of $from for $prefix"
	mkdir -p "$build" "$(dirname -- "$prefix")"
	run_step 900 "$work/configure.log" env -C "$build" "$from/configure" -q --prefix="$prefix" "${options[@]}" || {
		tail -n 30 "$work/configure.log" >&2
		die "could not configure $from"
	}
	# not into $prefix at once: half an installation looks like a whole one
	for words in "-j $(nproc) all" "-C contrib/pg_stat_statements all" "DESTDIR=$work/stage install" \
		"-C contrib/pg_stat_statements DESTDIR=$work/stage install"; do
		# shellcheck disable=SC2086 # several arguments
		run_step 3600 "$work/make.log" make -s -C "$build" COPT="$copt" $words || {
			tail -n 30 "$work/make.log" >&2
			die "could not build $from"
		}
	done
	printf '%s\n' "$made" >"$work/stage$prefix/made_with"
	chmod -R a+rX "$work/stage"
	mv "$work/stage$prefix" "$prefix"
	rm -rf "$build" "$work/stage"
}
