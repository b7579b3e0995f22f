// pg_clerk with node-postgres. PGHOST, PGPORT, PGUSER and PGDATABASE say where.
import pg from 'pg';

const ok = (good, what) => console.log(`${good ? 'ok' : 'not ok'} - ${what}`);

const client = new pg.Client({ application_name: 'node-postgres' });
const other = new pg.Client();
await client.connect();
await other.connect();

// An object is sent as JSON, and jsonb comes back as an object.
const params = { name: 'Acme', domains: ['acme.pg.example'], saml: {} };
const { rows } = await client.query('SELECT create_enterprise_connection($1) AS connection', [params]);
ok(rows[0].connection.name === 'Acme', 'create from an object');

// Names of arguments are in the text. An array is sent as an array.
const named = await client.query(
  'SELECT create_enterprise_connection(name => $1, domains => $2, saml => $3) AS connection',
  ['Beta', ['beta.pg.example'], {}]);
ok(named.rows[0].connection.domains[0] === 'beta.pg.example', 'named arguments');

// The domain is taken.
try {
  await client.query('SELECT create_enterprise_connection($1)', [params]);
  ok(false, 'no error');
} catch (err) {
  ok(err.code === 'KC422' &&
    err.constraint === 'organization_domain_exists_for_enterprise_connection' &&
    err.column === 'domains', "KC422 with Clerk's code and parameter");
}

// A call that waits is cancelled from another connection.
const call = client.query("SELECT create_enterprise_connection(name => 'Late', domains => '{late.pg.example}', saml => '{}')")
  .catch((err) => err);
await other.query("SELECT until_waiting('node-postgres')");
await other.query('SELECT pg_cancel_backend($1)', [client.processID]);
ok((await call).code === '57014', 'cancel');

// The worker tells who listens. A bigint comes back as a string.
const notification = new Promise((resolve) => client.once('notification', resolve));
await client.query('LISTEN pg_clerk');
const enqueued = await client.query("SELECT enqueue_enterprise_connection('upsert', $1, key => 'pg:1') AS request",
  [{ name: 'Gamma', domains: ['gamma.pg.example'], saml: {} }]);
const payload = JSON.parse((await notification).payload);
ok(payload.request === Number(enqueued.rows[0].request) && payload.state === 'delivered', 'notification');

// A rollback does not undo a direct call: a warning says what is left.
const warnings = [];
client.on('notice', (notice) => warnings.push(notice));
await client.query('BEGIN');
await client.query("SELECT create_enterprise_connection(name => 'Delta', domains => '{delta.pg.example}', saml => '{}')");
await client.query('ROLLBACK');
ok(warnings[0]?.severity === 'WARNING' && /exists at Clerk/.test(warnings[0].message), 'warning of the rollback');

await client.end();
await other.end();
