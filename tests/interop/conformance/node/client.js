// Runs one case against a server: node client.js HOST:PORT CASE. Without arguments, lists the cases.
'use strict';

const cases = require('./cases');

const [address, name] = process.argv.slice(2);

if (address === undefined) {
  console.log(Object.keys(cases).join('\n'));
} else {
  cases[name](address).catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
}
