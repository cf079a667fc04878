package cmd_test

var nodeRecipe = recipe{
	name:    "node",
	version: `node --version | tr -d v`,
	root:    files{"server.js": nodeServer("certs/site", "")},
	spoiled: map[string]files{
		validateFails: {"server.js": "const http ="},
		// node --check does not look for modules.
		reloadFails: {"server.js": nodeServer("certs/site", "require('./missing')")},
		wrong:       {"server.js": nodeServer("certs/other", ""), "certs/other.pem": "{othercert}", "certs/other.key": "{otherkey}"},
	},
	refused: "SyntaxError",
	reload: `if alive; then
	managerctl run/orders
else
	rm -f run/pid
	socketd {addr} node {current}/server.js >>run/node.log 2>&1 &
	until [ -s run/pid ]; do sleep 0.1; done
fi
`,
	vars: []string{`ACTIVE=readlink "/proc/$(cat run/main)/exe"`, "WAIT=1"},
	checks: []string{
		"type=tls,addr={addr},sni=site.test,cert=certs/site.pem",
		"type=process,pidfile={dir}/run/main",
	},
}

// nodeServer returns a server that ends as it should, with this certificate and
// something more.
func nodeServer(cert, more string) string {
	return `'use strict';
const fs = require('fs');
const https = require('https');
const path = require('path');
` + more + `

// Node has resolved current: all of it comes from one root.
const read = name => fs.readFileSync(path.join(__dirname, name));
const text = read('html/index.html');

let ending = false;
const server = https.createServer({ cert: read('` + cert + `.pem'), key: read('` + cert + `.key') }, (request, response) => {
	if (ending) response.setHeader('Connection', 'close');
	response.setHeader('Content-Length', text.length);
	response.end(text);
});

// A socket that systemd holds, or a port of its own.
server.listen(process.env.LISTEN_FDS ? { fd: 3 } : process.env.PORT);

process.on('SIGTERM', () => {
	ending = true;
	server.close();
	server.closeIdleConnections();
});
`
}
