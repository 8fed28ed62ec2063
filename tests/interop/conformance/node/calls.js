// A client of the test service, its requests, and its four kinds of calls as promises.
'use strict';

const assert = require('node:assert/strict');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const options = { includeDirs: [process.env.CONFORMANCE_PROTOS], keepCase: true, defaults: true };
const api = grpc.loadPackageDefinition(protoLoader.loadSync('testing.proto', options)).grpc.testing;

const TIMEOUT_MS = 20_000;
const MIB = 1 << 20;
const big = { 'grpc.max_receive_message_length': 64 * MIB, 'grpc.max_send_message_length': 64 * MIB };

const zeros = (size) => ({ body: Buffer.alloc(size) });
const simple = (up, down, fields = {}) => ({ payload: zeros(up), response_size: down, ...fields });
const output = (sizes, up = 0, interval_us = 0) => ({
  payload: zeros(up),
  response_parameters: sizes.map((size) => ({ size, interval_us })),
});
const within = (ms) => ({ deadline: Date.now() + ms });

/** Size of the payload, which must be all zeros. */
const sizeOf = ({ payload }) => {
  const { length } = payload.body;
  assert.ok(payload.body.equals(Buffer.alloc(length)), 'not all zeros');
  return length;
};

/** Run with a client of its own connection. */
async function connected(address, channelOptions, run) {
  const client = new api.TestService(address, grpc.credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
    ...channelOptions,
  });
  try {
    return await run(client);
  } finally {
    client.close();
  }
}

/** A unary call: what was answered, and both metadata. Rejects with the status. */
const unary = (client, method, request, metadata = new grpc.Metadata(), callOptions = within(TIMEOUT_MS)) =>
  new Promise((resolve, reject) => {
    const seen = {};
    const call = client[method](request, metadata, callOptions, (error, response) => {
      seen.response = response;
      if (error) reject(error);
    });
    call.on('metadata', (initial) => (seen.initial = initial));
    call.on('status', ({ code, metadata: trailing }) => {
      seen.trailing = trailing;
      if (code === grpc.status.OK) setImmediate(resolve, seen);
    });
  });

/** A call with a stream of requests and one answer. */
const clientStream = (client, method, requests, finish = (call) => call.end()) =>
  new Promise((resolve, reject) => {
    const call = client[method](within(TIMEOUT_MS), (error, response) => (error ? reject(error) : resolve(response)));
    for (const request of requests) call.write(request);
    finish(call);
  });

/** All sizes of a stream of responses; `each` sees the number of those that came. Rejects with the status. */
const sizesOf = (call, each = () => {}) =>
  new Promise((resolve, reject) => {
    const sizes = [];
    call.on('data', (response) => each(sizes.push(sizeOf(response))));
    call.on('error', reject);
    call.on('end', () => resolve(sizes));
  });

/** The status that a promise is rejected with. */
async function refusal(promise) {
  const error = await promise.then(
    () => assert.fail('was not refused'),
    (reason) => reason,
  );
  assert.notEqual(error.code, undefined, error);
  return error;
}

module.exports = {
  MIB, TIMEOUT_MS, api, big, clientStream, connected, output, refusal, simple, sizeOf, sizesOf, unary, within, zeros,
};
