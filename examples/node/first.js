// A first program in Node: registers a service, watches it, publishes an event, and leaves.
//
//   trunkline serve &
//   trunkline protos export examples/node/protos
//   npm install && node first.js [HOST:PORT]
'use strict';

const crypto = require('node:crypto');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const address = process.argv[2] ?? '127.0.0.1:7400';
const protos = process.env.TRUNKLINE_PROTOS ?? path.join(__dirname, 'protos');
const files = ['registry', 'discovery', 'events'].map((name) => `trunkline/api/v1/${name}.proto`);
const options = { includeDirs: [protos], keepCase: true, longs: String, enums: String, defaults: true };
const definition = protoLoader.loadSync(files, options);
const api = grpc.loadPackageDefinition(definition).trunkline.api.v1;
const credentials = grpc.credentials.createInsecure();
const registry = new api.RegistryService(address, credentials);
const discovery = new api.DiscoveryService(address, credentials);
const events = new api.EventService(address, credentials);

/** Call a unary method and await its answer. */
const call = (client, method, request) =>
  new Promise((resolve, reject) => {
    const deadline = new Date(Date.now() + 10_000);
    client[method](request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });

async function main() {
  const id = `node-${process.pid}`;

  // Watch first, so that the registration is seen to arrive.
  const watch = discovery.Watch();
  const seen = new Promise((resolve, reject) => {
    watch.on('error', reject);
    watch.on('data', ({ events: batch }) => {
      for (const event of batch) {
        for (const { instance, status } of event.upserted) {
          console.log(`watch: ${instance.service}/${instance.id} is ${status} at revision ${event.revision}`);
          if (instance.id === id) resolve();
        }
        watch.write({ acknowledge: { watch_id: event.watch_id, revision: event.revision } });
      }
    });
  });
  seen.catch(() => {}); // told below, where it is awaited
  watch.write({ open: { watch_id: 1, namespace: 'default', service: 'cart', client: id } });

  // Whoever knows the secret holds the lease: registering again with it changes the same registration.
  const lease = await call(registry, 'Register', {
    instance: { namespace: 'default', service: 'cart', id, version: '1.0.0', endpoints: [{ host: '127.0.0.1', port: 8080 }] },
    lease_secret: crypto.randomBytes(16),
    ttl: { seconds: 10 },
  });
  console.log(`registered: lease granted for ${lease.ttl.seconds} s`);

  // One stream keeps any number of leases alive; a third of the TTL is a good pace.
  const keepAlive = registry.KeepAlive();
  keepAlive.on('error', (error) => console.error(`keep-alive: ${error.message}`));
  keepAlive.on('data', ({ lost }) => lost.forEach(({ reason }) => console.error(`lease lost: ${reason}`)));
  keepAlive.write({ lease_ids: [lease.lease_id] });
  const timer = setInterval(() => keepAlive.write({ lease_ids: [lease.lease_id] }), 3_000);

  await seen;

  // The same source and id published again is recognised: the answer says where it already is.
  const event = { id: crypto.randomUUID(), source: '/examples/node', spec_version: '1.0', type: 'cart.opened', text_data: id };
  for (const attempt of ['published', 'published again']) {
    const answer = await call(events, 'Publish', { namespace: 'default', events: [event] });
    const { offset, duplicate } = answer.published[0];
    console.log(`${attempt}: offset ${offset}, duplicate ${duplicate}, ${answer.durability.sync}`);
  }

  clearInterval(timer);
  keepAlive.end();
  watch.cancel(); // a watch goes on until it is cancelled
  await call(registry, 'Deregister', { registration: { namespace: 'default', lease_id: lease.lease_id } });
  console.log('deregistered');
  for (const client of [registry, discovery, events]) client.close();
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
