// sdk.mjs URL KEY COUNT CONCURRENCY prints the requests per second of Clerk's
// SDK: creates in waves, as a script that syncs a table would send them.
import { createClerkClient } from '@clerk/backend';

const [apiUrl, secretKey, count, concurrency] = process.argv.slice(2);
const clerk = createClerkClient({ secretKey, apiUrl, telemetry: { disabled: true } });

function create(n) {
	return clerk.enterpriseConnections.createEnterpriseConnection({
		name: `Acme ${n}`,
		provider: 'saml_okta',
		domains: [`flood${n}.example`],
		organizationId: 'org_2xB7',
		saml: {
			idpEntityId: 'https://idp.acme.example',
			idpSsoUrl: 'https://idp.acme.example/sso',
			attributeMapping: { emailAddress: 'mail', firstName: 'givenName' },
		},
	});
}

async function createAll(first, last) {
	for (let from = first; from < last; from += Number(concurrency))
		await Promise.all(Array.from({ length: Math.min(concurrency, last - from) }, (_, i) => create(from + i)));
}

// it has sockets, and is compiled, before anything is measured
await createAll(0, 200);
const begin = performance.now();
await createAll(200, 200 + Number(count));
console.log((count / (performance.now() - begin) * 1000).toFixed(1));
