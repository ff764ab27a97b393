// Calls /test.Names/Name of a target, such as xds:///names, again and again, and prints who answered.
'use strict';

if (process.env.GRPC_XDS_BOOTSTRAP) require('./xds_over_tls');
const grpc = require('@grpc/grpc-js');
require('@grpc/grpc-js-xds').register();

const same = (bytes) => bytes;
const client = new grpc.Client(process.argv[2], grpc.credentials.createInsecure());

function call() {
  const deadline = { deadline: Date.now() + 20000 };
  client.makeUnaryRequest('/test.Names/Name', same, same, Buffer.alloc(0), new grpc.Metadata(), deadline, (error, answer) => {
    console.log(error ? `failed: ${error.message}` : answer.toString());
    setTimeout(call, 10);
  });
}

call();
