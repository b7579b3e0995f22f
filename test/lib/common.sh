# shellcheck shell=bash
#
# What test/run and test/demo have in common: install what is missing, build,
# and run a throwaway PostgreSQL and a mock Clerk server.
#
# Everything happens in one private directory: a copy of the sources, a copy
# of PostgreSQL's programs with the extension installed into it, the data
# directory, the logs. So neither the checkout nor the machine's PostgreSQL
# is touched, several runs can go on side by side, and a process whose program
# lies in that directory is certainly ours to end.

set -euo pipefail

# Nothing here asks anything; a program that reads its input finds the end.
exec </dev/null

# Debian's programs first: its packages are what is installed and counted on.
export PATH="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin${PATH:+:$PATH}"
export LANG=C.UTF-8 LC_ALL=C.UTF-8
unset LANGUAGE

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
pg_config=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}

packages=(
	postgresql-15 postgresql-server-dev-15 postgresql-common
	libcurl4-openssl-dev libjson-c-dev libmicrohttpd-dev libglib2.0-dev
	gcc make libc6-dev pkg-config
	perl libipc-run-perl curl openssl
)

work=                           # the private directory
keep=${keep:-no}                # leave it behind
step=                           # pid and process group of the running step
policy=                         # the policy file to take away again

# What test/builds/asan sets: flags of the compiler, beside PostgreSQL's own,
# and libraries that the servers load first.
copt=${COPT:--Werror}
server_environment=(${PRELOAD:+"LD_PRELOAD=$PRELOAD"})  # assignments

say() {
	printf '%s\n' "$*"
}

die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# ---------------------------------------------------------------------------
# Beginning and end
# ---------------------------------------------------------------------------

# Processes whose program lies in the private directory, one pid a line.
own_processes() {
	find /proc/[0-9]* -maxdepth 1 -name exe -lname "$work/*" -printf '%h\n' 2>/dev/null |
		sed 's,^/proc/,,' || true
}

# SIGQUIT is PostgreSQL's immediate shutdown: it takes all its children along.
end_processes() {
	local pids signal=QUIT tries=0

	if [[ -n $step ]]; then
		kill -TERM -- "-$step" 2>/dev/null || true
		wait "$step" 2>/dev/null || true
	fi
	while pids=$(own_processes) && [[ -n $pids ]]; do
		# shellcheck disable=SC2086 # a list of numbers
		((tries % 50)) || kill -"$signal" $pids 2>/dev/null || true
		((++tries < 50)) || signal=KILL
		((tries < 150)) || break
		sleep 0.1
	done
}

# The caller's last words: test/run prints its count here.
closing() {
	:
}

cleanup() {
	local status=$?

	trap - EXIT
	trap '' HUP INT PIPE TERM
	set +e
	[[ -z $policy ]] || rm -f "$policy"
	if [[ -n $work ]]; then
		end_processes 2>/dev/null
		if [[ $keep == yes ]]; then
			say "kept: $work"
		else
			cd / && rm -rf "$work"
		fi
	fi
	closing "$status"
	exit "$status"
}

# Call once, first. Not below $TMPDIR, which user postgres may be unable to
# enter, and whose name may be too long for a socket.
begin() {
	trap cleanup EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 141' PIPE
	trap 'exit 143' TERM
	ulimit -S -c 0
	work=$(mktemp -d /tmp/pg_clerk.XXXXXX)
	cd "$work"
}

# Before another script takes over: what there is so far is not needed.
leave() {
	end_processes 2>/dev/null
	cd / && rm -rf "$work"
	work=
	trap - EXIT HUP INT PIPE TERM
}

# run_step SECONDS LOG COMMAND...: run a command in a process group of its own
# and wait for it, so that a signal to this script is acted upon at once, and
# ends all of the command. Its output goes to LOG ("-": where ours goes), here
# and not by the caller's redirection, which would swallow our last words too.
run_step() {
	local seconds=$1 log=$2 status=0

	shift 2
	if [[ $log == - ]]; then
		setsid timeout -k 10 "$seconds" "$@" &
	else
		setsid timeout -k 10 "$seconds" "$@" >>"$log" 2>&1 &
	fi
	step=$!
	wait "$step" || status=$?
	step=
	((status != 124)) || say "ended after $seconds seconds: $*"
	return "$status"
}

# ---------------------------------------------------------------------------
# Packages
# ---------------------------------------------------------------------------

missing_packages() {
	local package states

	states=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true)
	for package in "$@"; do
		grep -qx "$package installed" <<<"$states" || say "$package"
	done
}

# Debian starts a server that it installs, unless this policy says no.
forbid_services() {
	[[ ! -e /usr/sbin/policy-rc.d ]] || return 0
	policy=/usr/sbin/policy-rc.d
	printf '#!/bin/sh\n# of the tests of pg_clerk, for as long as they install packages\nexit 101\n' >"$policy"
	chmod 755 "$policy"
}

apt() {
	run_step 1800 "$work/apt.log" env DEBIAN_FRONTEND=noninteractive apt-get -y -q \
		-o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@"
}

need_packages() {
	local missing

	if ! command -v dpkg-query >/dev/null; then
		say "no Debian: taking for granted ${packages[*]}"
		return
	fi
	mapfile -t missing < <(missing_packages "${packages[@]}")
	((${#missing[@]})) || return 0
	((EUID == 0)) || die "these packages are missing, and only root can install them: ${missing[*]}"
	say "installing ${missing[*]}"
	forbid_services
	# What was known before may do, if a package list cannot be fetched now.
	apt update || say "could not update the package lists"
	if ! apt install --no-install-recommends "${missing[@]}"; then
		tail -n 30 "$work/apt.log" >&2
		die "could not install ${missing[*]}"
	fi
	if [[ -n $policy ]]; then
		rm -f "$policy"
		policy=
	fi
}

# ---------------------------------------------------------------------------
# Building
# ---------------------------------------------------------------------------

# The caller's PGOPTIONS, http_proxy or SSL_CERT_FILE would make the results
# depend on them. The options of the sanitizers are test/builds/asan's.
clean_environment() {
	local name

	for name in $(compgen -e); do
		case $name in
			PATH | LANG | LC_ALL | TERM | PWD | PG_CLERK_TEST_* | ASAN_OPTIONS | UBSAN_OPTIONS) ;;
			# of another libcurl
			PKG_CONFIG_PATH | LD_LIBRARY_PATH) ;;
			*) unset "$name" ;;
		esac
	done
}

# The programs refuse to run as root: user postgres does all that follows.
become_postgres() {
	clean_environment
	# What a script starts in the background ignores these two signals, and
	# would hand that down to the tests.
	as_postgres=(env "--default-signal=INT,QUIT" "HOME=$work")
	if ((EUID == 0)); then
		id postgres >/dev/null 2>&1 || die "there is no user postgres"
		as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups
			"${as_postgres[@]}" USER=postgres LOGNAME=postgres)
		chown postgres: "$work"
	fi
}

# The files of the tree that are or could be committed: no stale object file
# can hide an error, and nothing is written into the checkout.
copy_sources() {
	local target=$1 file

	mkdir "$target"
	(
		cd "$root"
		if git -c safe.directory='*' rev-parse --is-inside-work-tree >/dev/null 2>&1; then
			git -c safe.directory='*' ls-files -z --cached --others --exclude-standard
		else
			find . -name .git -prune -o -type f ! -name '*.o' ! -name '*.so' -print0
		fi |
			while IFS= read -r -d '' file; do
				[[ ! -e $file ]] || printf '%s\0' "$file"
			done |
			tar -c --null --no-recursion -T -
	) | tar -x --no-same-owner -C "$target"
	((EUID != 0)) || chown -R postgres: "$target"
}

# A variable of the Makefile.
# shellcheck disable=SC2016 # it is make that expands it
make_variable() {
	make -s --no-print-directory -C "$source" PG_CONFIG="$pg_config" \
		-f Makefile -f <(printf 'print-variable:\n\t@echo $(%s)\n' "$1") print-variable
}

compile() {
	: >"$work/make.log"
	run_step 900 "$work/make.log" "${as_postgres[@]}" make -s --no-print-directory -C "$@" || {
		cat "$work/make.log" >&2
		return 1
	}
}

# PostgreSQL finds its files by the place of its own program. So a tree that
# has copies of the programs, links to everything else, and our extension is
# an installation of its own.
copy_postgres() {
	local dir

	[[ -x $pg_config ]] || die "there is no $pg_config"
	pg_bin=$tree$("$pg_config" --bindir)
	pg_xs=$("$pg_config" --pgxs)
	pg_tests=${pg_xs%/makefiles/*}/test
	mkdir -p "$pg_bin"
	cp -L "$("$pg_config" --bindir)"/* "$pg_bin"
	for dir in "$("$pg_config" --pkglibdir)" "$("$pg_config" --sharedir)"; do
		mkdir -p "$tree$dir"
		cp -rs "$dir/." "$tree$dir"
	done
	# not the ones of an installed release
	find "$tree" -name 'pg_clerk*' -delete
	((EUID != 0)) || chown -R -h postgres: "$tree"
}

build() {
	source=$work/source
	tree=$work/tree
	copy_sources "$source"
	copy_postgres
	compile "$source" -j2 PG_CONFIG="$pg_config" COPT="$copt" all ||
		die "could not build the extension"
	compile "$source" PG_CONFIG="$pg_config" COPT="$copt" DESTDIR="$tree" install ||
		die "could not install the extension"
	compile "$source/test/mock" -j2 ||
		die "could not build the mock server"
	mock=$source/test/mock_clerk
	PATH=$pg_bin:$PATH
}

# ---------------------------------------------------------------------------
# Servers
# ---------------------------------------------------------------------------

# Poll until a command succeeds; gives up after 30 seconds.
wait_until() {
	local tries=0

	until "$@"; do
		((++tries < 600)) || return 1
		sleep 0.05
	done
}

# Durability is not what is tested with this one; the tests of crashes make
# their own.
start_postgres() {
	local data=$work/data

	export PGHOST=$work/socket PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
	"${as_postgres[@]}" mkdir "$PGHOST"
	"${as_postgres[@]}" "$pg_bin/initdb" -D "$data" -U postgres -A trust -N \
		-E UTF8 --locale=C.UTF-8 --lc-collate=C >"$work/initdb.log" 2>&1 || {
		cat "$work/initdb.log" >&2
		die "could not make a cluster"
	}
	cat >>"$data/postgresql.conf" <<-END
		listen_addresses = ''
		unix_socket_directories = '$PGHOST'
		fsync = off
		synchronous_commit = off
		max_prepared_transactions = 10
		log_line_prefix = '%m [%p] %q%a '
		restart_after_crash = on
		${postgres_settings-}
	END
	"${as_postgres[@]}" "${server_environment[@]}" "$pg_bin/pg_ctl" -D "$data" -l "$work/postgres.log" -w -s start || {
		cat "$work/postgres.log" >&2
		die "could not start PostgreSQL"
	}
}

# Orderly, so that all processes write what they write at their end.
stop_postgres() {
	"${as_postgres[@]}" "$pg_bin/pg_ctl" -D "$work/data" -w -s -m fast stop || die "could not stop PostgreSQL"
}

# PostgreSQL's perl modules; those of Debian's 15 do for an installation that
# came without.
perl_modules() {
	local dir

	for dir in "$pg_tests/perl" /usr/lib/postgresql/15/lib/pgxs/src/test/perl; do
		if [[ -e $dir/PostgreSQL/Test/Cluster.pm ]]; then
			say "$dir"
			return
		fi
	done
	die "there is no PostgreSQL::Test::Cluster"
}

mock_answers() {
	kill -0 "$mock_pid" 2>/dev/null || die "the mock server did not start: $(cat "$work/mock.log")"
	[[ -s $work/mock.port ]]
}

# start_mock OPTION...
start_mock() {
	"${as_postgres[@]}" "$mock" --port 0 --port-file "$work/mock.port" --parent $$ \
		--max-seconds 86400 "$@" \
		>"$work/mock.log" 2>&1 &
	mock_pid=$!
	wait_until mock_answers || die "the mock server did not start: $(cat "$work/mock.log")"
	export CLERK_MOCK_URL
	CLERK_MOCK_URL=http://127.0.0.1:$(tr -d '[:space:]' <"$work/mock.port")
}

# ---------------------------------------------------------------------------
# Clock
# ---------------------------------------------------------------------------

# stopwatch: starts it; "$(lap)": seconds since then.
stopwatch() {
	lap_start=${EPOCHREALTIME/./}
}

lap() {
	local us=$((${EPOCHREALTIME/./} - lap_start))

	printf '%d.%d s' $((us / 1000000)) $((us / 100000 % 10))
}
