"""pg_clerk with psycopg 3. PGHOST, PGPORT, PGUSER and PGDATABASE say where."""
import json
import threading

import psycopg
from psycopg.types.json import Jsonb


def ok(good, what):
    print("ok -" if good else "not ok -", what)


# Else the first statement begins a transaction, and all is one.
conn = psycopg.connect(application_name="psycopg", autocommit=True)
other = psycopg.connect(autocommit=True)

# A dict has to be wrapped; jsonb comes back as a dict.
params = {"name": "Acme", "domains": ["acme.psycopg.example"], "saml": {}}
(connection,) = conn.execute("SELECT create_enterprise_connection(%s)", [Jsonb(params)]).fetchone()
ok(connection["name"] == "Acme", "create from a dict")

# Names of arguments are in the text. A list is sent as an array.
(connection,) = conn.execute(
    "SELECT create_enterprise_connection(name => %s, domains => %s, saml => %s)",
    ["Beta", ["beta.psycopg.example"], Jsonb({})],
).fetchone()
ok(connection["domains"] == ["beta.psycopg.example"], "named arguments")

# The domain is taken. psycopg does not know the SQLSTATE: it is a DatabaseError.
try:
    conn.execute("SELECT create_enterprise_connection(%s)", [Jsonb(params)])
    ok(False, "no error")
except psycopg.DatabaseError as e:
    ok(
        e.sqlstate == "KC422"
        and e.diag.constraint_name == "organization_domain_exists_for_enterprise_connection"
        and e.diag.column_name == "domains",
        "KC422 with Clerk's code and parameter",
    )


# A call that waits is cancelled from another thread.
def cancel():
    other.execute("SELECT until_waiting('psycopg')")
    conn.cancel()


thread = threading.Thread(target=cancel)
thread.start()
try:
    conn.execute("SELECT create_enterprise_connection(name => 'Late', domains => '{late.psycopg.example}', saml => '{}')")
    ok(False, "not cancelled")
except psycopg.errors.QueryCanceled as e:
    ok(e.sqlstate == "57014", "cancel")
thread.join()

# The worker tells who listens.
conn.execute("LISTEN pg_clerk")
(request,) = conn.execute(
    "SELECT enqueue_enterprise_connection('upsert', %s, key => 'psycopg:1')",
    [Jsonb({**params, "domains": ["gamma.psycopg.example"]})],
).fetchone()
for notification in conn.notifies():
    payload = json.loads(notification.payload)
    if payload["key"] == "psycopg:1":
        break
ok(payload["request"] == request and payload["state"] == "delivered", "notification")

# A rollback does not undo a direct call: a warning says what is left. Its
# fields are there only while the handler runs.
warnings = []
conn.add_notice_handler(lambda diag: warnings.append((diag.severity, diag.message_primary)))
with conn.transaction():
    conn.execute("SELECT create_enterprise_connection(name => 'Delta', domains => '{delta.psycopg.example}', saml => '{}')")
    raise psycopg.Rollback
ok(warnings[0][0] == "WARNING" and "exists at Clerk" in warnings[0][1], "warning of the rollback")

conn.close()
other.close()
