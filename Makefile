# pg_clerk: Clerk enterprise connections from SQL.
#
#   make && make install        build and install for the pg_config on PATH
#   make PG_CONFIG=/path/...    for another PostgreSQL
#   make COPT=-Werror           warnings are errors, as the tests build it

# Where the sources are: here, or elsewhere ("make -f /path/to/Makefile" in an
# empty directory, as Debian's pg_buildext does it). $(srcdir) is PGXS's word
# for it, but is not known before PGXS is included.
source := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))

EXTENSION = pg_clerk
MODULE_big = pg_clerk
PGFILEDESC = "pg_clerk - Clerk enterprise connections from SQL"
OBJS := $(patsubst $(source)/%.c,%.o,$(sort $(wildcard $(source)/src/*.c $(source)/src/*/*.c)))
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(source)/$(EXTENSION).control)

# The install script is joined from these parts, in this order: a part uses
# what the ones before it create.
INSTALL_PARTS = head server params tracking calls outbox trigger views statistics
# Upgrade scripts, such as src/sql/pg_clerk--1.0--1.1.sql
DATA =
DATA_built = $(EXTENSION)--$(EXTVERSION).sql

PKG_CONFIG ?= pkg-config
PG_CONFIG ?= pg_config
PG_CPPFLAGS = -I$(source)/src $(shell $(PKG_CONFIG) --cflags libcurl json-c) -DCLERK_VERSION=\"$(EXTVERSION)\"
SHLIB_LINK = $(shell $(PKG_CONFIG) --libs libcurl json-c)
PG_CFLAGS = -Wextra -Wno-unused-parameter -isystem $(shell $(PG_CONFIG) --includedir-server)

# A list that is empty, or a program that is missing, would build a library
# that PostgreSQL can't load, and make would not fail.
$(if $(OBJS),,$(error there are no C files below $(source)/src))
$(if $(EXTVERSION),,$(error $(source)/$(EXTENSION).control has no default_version))
unlisted := $(filter-out $(INSTALL_PARTS:%=$(source)/src/sql/%.sql) $(DATA:%=$(source)/%),$(wildcard $(source)/src/sql/*.sql))
$(if $(unlisted),$(error neither in INSTALL_PARTS nor in DATA: $(unlisted)))

# $(call succeeds,command): not empty if it does
succeeds = $(filter 0,$(shell $(1) >/dev/null 2>&1; echo $$?))
# $(call need,library,version,package of Debian)
need = $(if $(call succeeds,$(PKG_CONFIG) --atleast-version=$(2) $(1)),,$(error pg_clerk needs $(1) $(2) or newer: \
	$(or $(addprefix there is ,$(shell $(PKG_CONFIG) --modversion $(1) 2>/dev/null)),$(PKG_CONFIG) knows no $(1)) (Debian: $(3))))

ifneq (,$(filter-out clean distclean maintainer-clean uninstall indent indent-check typedefs lint hook,$(or $(MAKECMDGOALS),all)))
$(if $(call succeeds,$(PKG_CONFIG) --version),,$(error $(PKG_CONFIG) does not run: install pkg-config, or set PKG_CONFIG))
$(call need,libcurl,7.87,libcurl4-openssl-dev)
$(call need,json-c,0.15,libjson-c-dev)
# make would take what lies there for its own, and not find it here
ifneq (,$(filter-out . $(CURDIR),$(source)))
built := $(wildcard $(OBJS:%=$(source)/%) $(DATA_built:%=$(source)/%))
$(if $(built),$(error $(source) has been built in: run "make clean" there before you build elsewhere))
endif
endif

# Nothing here is worth inlining into a query: no bitcode, no need of clang.
override with_llvm = no

PGXS := $(shell $(PG_CONFIG) --pgxs)
$(if $(PGXS),,$(error $(PG_CONFIG) does not run: install the development files of PostgreSQL, or set PG_CONFIG))
$(if $(wildcard $(PGXS)),,$(error there is no $(PGXS): install the development files of PostgreSQL (Debian: postgresql-server-dev-NN)))
EXTRA_CLEAN += results output_iso regression.diffs regression.out test/mock_clerk
include $(PGXS)

# After PGXS, which would make an installcheck of these that has no mock.
REGRESS = setup comments params composite create create_params errors answers settings secrets default_server privileges identity limits calls list upsert merge mirror batch rollback rollback_delete enqueue trigger trigger_rows trigger_nulls trigger_delivery reconcile drift outbox outbox_lanes outbox_failures outbox_doubt outbox_requests outbox_privileges outbox_upkeep domains status statistics twins guard hostile matrix parallel
ISOLATION = upsert_same_key upsert_two_keys repeatable_read mirror_vs_update outbox_order outbox_cancel reconcile_writers outbox_levels

# Against a running server that has the extension: PGHOST, PGPORT, PGUSER.
.PHONY: installcheck
installcheck:
	PG_CONFIG='$(PG_CONFIG)' SOURCE='$(abspath $(source))' REGRESS='$(REGRESS)' ISOLATION='$(ISOLATION)' \
		$(source)/test/installcheck

# The archive for PGXN, of what is committed.
DISTVERSION := $(shell sed -n 's/^   "version": "\(.*\)",/\1/p' $(source)/META.json)
.PHONY: dist
dist:
	case $(DISTVERSION) in $(EXTVERSION).*) ;; *) \
		echo "META.json says $(DISTVERSION), $(EXTENSION).control says $(EXTVERSION)" >&2; exit 1 ;; esac
	git -C $(source) archive --format=zip --prefix=$(EXTENSION)-$(DISTVERSION)/ \
		-o $(CURDIR)/$(EXTENSION)-$(DISTVERSION).zip HEAD

# Each object depends on all headers. Its directory has to be made where the
# sources are elsewhere; by its whole name, as make would find it there.
$(OBJS): $(wildcard $(source)/src/*.h $(source)/src/*/*.h) | $(sort $(dir $(OBJS:%=$(CURDIR)/%)))

$(sort $(dir $(OBJS:%=$(CURDIR)/%))):
	mkdir -p $@

$(DATA_built): $(INSTALL_PARTS:%=$(source)/src/sql/%.sql) $(source)/Makefile $(source)/$(EXTENSION).control
	for part in $(INSTALL_PARTS); do cat $(source)/src/sql/$$part.sql && echo || exit; done >$@.new
	mv -f $@.new $@

# Against a throwaway server; see test/.
.PHONY: bench
bench:
	$(source)/test/bench/run $(if $(ROUNDS),-r $(ROUNDS)) $(PARTS)

.PHONY: soak
soak:
	$(source)/test/soak/run

# Builds that find faults. PG_SOURCE is an unpacked source of PostgreSQL.
.PHONY: check-asserts
check-asserts:
	PG_SOURCE='$(PG_SOURCE)' PG_PREFIX='$(PG_PREFIX)' $(source)/test/builds/asserts $(TESTS)

.PHONY: asan
asan:
	PG_SOURCE='$(PG_SOURCE)' PG_PREFIX='$(PG_PREFIX)' $(source)/test/builds/asan $(if $(SECONDS),-t $(SECONDS)) $(TESTS)

.PHONY: fuzz
fuzz:
	$(source)/test/fuzz/run $(if $(SECONDS),-t $(SECONDS)) $(if $(SEED),-s $(SEED)) $(PARTS)

.PHONY: coverage
coverage:
	$(source)/test/run -c $(TESTS)

# The shape of the C files, and what can be seen without running anything.
.PHONY: indent indent-check typedefs lint hook
indent:
	$(source)/test/lint/indent $(FILES)

indent-check:
	$(source)/test/lint/indent --check $(FILES)

typedefs:
	$(source)/test/lint/typedefs

lint:
	$(source)/test/lint/run $(if $(ALL),--all)

# Checks what is staged before each commit.
hook:
	$(source)/test/lint/hook --install
