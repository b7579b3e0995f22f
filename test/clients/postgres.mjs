// pg_clerk with postgres.js. PGHOST, PGPORT, PGUSER and PGDATABASE say where.
import postgres from 'postgres';

const ok = (good, what) => console.log(`${good ? 'ok' : 'not ok'} - ${what}`);

const warnings = [];
const sql = postgres({ max: 1, connection: { application_name: 'postgres.js' }, onnotice: (notice) => warnings.push(notice) });
const other = postgres({ max: 1 });

// jsonb comes back as an object.
const params = { name: 'Acme', domains: ['acme.postgres.example'], saml: {} };
const [{ connection }] = await sql`SELECT create_enterprise_connection(${sql.json(params)}) AS connection`;
ok(connection.name === 'Acme', 'create from an object');

// Names of arguments are in the text. An array is sent as an array.
const [named] = await sql`
  SELECT create_enterprise_connection(name => ${'Beta'}, domains => ${['beta.postgres.example']}, saml => ${sql.json({})}) AS connection`;
ok(named.connection.domains[0] === 'beta.postgres.example', 'named arguments');

// The domain is taken.
try {
  await sql`SELECT create_enterprise_connection(${sql.json(params)})`;
  ok(false, 'no error');
} catch (err) {
  ok(err.code === 'KC422' &&
    err.constraint_name === 'organization_domain_exists_for_enterprise_connection' &&
    err.column_name === 'domains', "KC422 with Clerk's code and parameter");
}

// A query can be cancelled while it waits. Nothing is sent before execute() or await.
const call = sql`SELECT create_enterprise_connection(name => 'Late', domains => '{late.postgres.example}', saml => '{}')`.execute();
const cancelled = call.catch((err) => err);
await other`SELECT until_waiting('postgres.js')`;
call.cancel();
ok((await cancelled).code === '57014', 'cancel');

// The worker tells who listens. A bigint comes back as a string.
let listener;
const notification = new Promise((resolve) => { listener = resolve; });
await sql.listen('pg_clerk', (text) => {
  const payload = JSON.parse(text);
  if (payload.key === 'postgres:1') listener(payload);
});
const [{ request }] = await sql`
  SELECT enqueue_enterprise_connection('upsert', ${sql.json({ ...params, domains: ['gamma.postgres.example'] })}, key => 'postgres:1') AS request`;
const payload = await notification;
ok(payload.request === Number(request) && payload.state === 'delivered', 'notification');

// A rollback does not undo a direct call: a warning says what is left.
await sql.begin(async (tx) => {
  await tx`SELECT create_enterprise_connection(name => 'Delta', domains => '{delta.postgres.example}', saml => '{}')`;
  throw new Error('changed my mind');
}).catch(() => {});
ok(warnings[0]?.severity === 'WARNING' && /exists at Clerk/.test(warnings[0].message), 'warning of the rollback');

await sql.end();
await other.end();
