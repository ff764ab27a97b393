// TLS to the registry for Node.js, whose xDS client speaks only plain text: a relay inside the program.
//
// Load this file before the first channel. If the bootstrap in GRPC_XDS_BOOTSTRAP has TLS credentials, the xDS client
// connects to a Unix socket that only this user can reach, and each connection goes on to the registry over TLS. The
// files are read anew for each connection, so that a renewed certificate is used without a restart.
'use strict';

const fs = require('fs');
const net = require('net');
const os = require('os');
const path = require('path');
const tls = require('tls');

const bootstrap = JSON.parse(fs.readFileSync(process.env.GRPC_XDS_BOOTSTRAP));
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'xds-'));
process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }));

bootstrap.xds_servers.forEach((server, number) => {
  const credentials = server.channel_creds[0];
  if (credentials.type !== 'tls') return;
  const { host, port } = address(server.server_uri);
  const socketPath = path.join(folder, `${number}.sock`);
  const relay = net.createServer((near) => {
    const far = tls.connect({
      host,
      port,
      servername: net.isIP(host) ? '' : host,
      // Without this, a server that is addressed by its IP would not be compared with its certificate.
      checkServerIdentity: (_, certificate) => tls.checkServerIdentity(host, certificate),
      ALPNProtocols: ['h2'],
      ca: fs.readFileSync(credentials.config.ca_certificate_file),
      cert: fs.readFileSync(credentials.config.certificate_file),
      key: fs.readFileSync(credentials.config.private_key_file),
    });
    for (const [one, other] of [[near, far], [far, near]]) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
      one.pipe(other);
    }
  });
  relay.listen(socketPath);
  relay.unref();
  server.server_uri = `unix:${socketPath}`;
  server.channel_creds = [{ type: 'insecure' }];
});

delete process.env.GRPC_XDS_BOOTSTRAP;
process.env.GRPC_XDS_BOOTSTRAP_CONFIG = JSON.stringify(bootstrap);

function address(uri) {
  const text = uri.replace(/^dns:\/*/, '');
  const end = text.lastIndexOf(':');
  return { host: text.slice(0, end).replace(/[[\]]/g, ''), port: Number(text.slice(end + 1)) };
}
