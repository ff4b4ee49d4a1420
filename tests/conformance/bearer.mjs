// Adds the bearer token to every request of the conformance suite, which does not support tokens.
//
//   NODE_OPTIONS="--import ./bearer.mjs" BEARER=… conformance server …
import diagnostics from 'node:diagnostics_channel';

const header = `Bearer ${process.env.BEARER}`;
diagnostics.subscribe('undici:request:create', ({ request }) => request.addHeader('authorization', header));
diagnostics.subscribe('http.client.request.created', ({ request }) => request.setHeader('authorization', header));
