# pg_clerk: Clerk enterprise connections from SQL.
#
#   make && make install        build and install for the pg_config on PATH
#   make PG_CONFIG=/path/...    for another PostgreSQL
#   make COPT=-Werror           warnings are errors, as the tests build it

EXTENSION = pg_clerk
MODULE_big = pg_clerk
PGFILEDESC = "pg_clerk - Clerk enterprise connections from SQL"
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))
EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(EXTENSION).control)
DATA = $(wildcard src/pg_clerk--*.sql)

REGRESS = setup params composite create errors answers settings secrets default_server privileges identity limits calls upsert merge mirror batch rollback enqueue trigger outbox outbox_lanes outbox_failures outbox_doubt outbox_requests outbox_privileges outbox_upkeep domains twins guard hostile matrix parallel
REGRESS_OPTS = --encoding=UTF8
ISOLATION = upsert_same_key upsert_two_keys repeatable_read mirror_vs_update outbox_order outbox_cancel outbox_backfill outbox_levels

PKG_CONFIG ?= pkg-config
PG_CONFIG ?= pg_config
PG_CPPFLAGS = -I$(srcdir)/src $(shell $(PKG_CONFIG) --cflags libcurl json-c) -DCLERK_VERSION=\"$(EXTVERSION)\"
SHLIB_LINK = $(shell $(PKG_CONFIG) --libs libcurl json-c)
PG_CFLAGS = -Wextra -Wno-unused-parameter -isystem $(shell $(PG_CONFIG) --includedir-server)

# Nothing here is worth inlining into a query: no bitcode, no need of clang.
override with_llvm = no

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(wildcard src/*.h src/*/*.h)

# Against a throwaway server; see test/.
.PHONY: bench
bench:
	test/bench/run $(if $(ROUNDS),-r $(ROUNDS)) $(PARTS)

.PHONY: soak
soak:
	test/soak/run

# Builds that find faults. PG_SOURCE is an unpacked source of PostgreSQL.
.PHONY: check-asserts
check-asserts:
	PG_SOURCE='$(PG_SOURCE)' PG_PREFIX='$(PG_PREFIX)' test/builds/asserts $(TESTS)

.PHONY: asan
asan:
	PG_SOURCE='$(PG_SOURCE)' PG_PREFIX='$(PG_PREFIX)' test/builds/asan $(if $(SECONDS),-t $(SECONDS)) $(TESTS)

.PHONY: fuzz
fuzz:
	test/fuzz/run $(if $(SECONDS),-t $(SECONDS)) $(if $(SEED),-s $(SEED)) $(PARTS)

.PHONY: coverage
coverage:
	test/run -c $(TESTS)
