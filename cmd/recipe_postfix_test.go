package cmd_test

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/smtp"
	"os/exec"
	"testing"
	"time"
)

var postfixRecipe = recipe{
	name:    "postfix",
	version: `postconf -d -h mail_version`,
	root: files{
		"certs/mail.pem":    "{key}{cert}",
		"postfix/main.cf":   postfixMain("mail"),
		"postfix/master.cf": postfixMaster(""),
	},
	spoiled: map[string]files{
		// To postfix check this is nothing: smtpd would go on without TLS.
		validateFails: {"certs/mail.pem": "{otherkey}{cert}"},
		// postfix check passes over a port that is taken, and master ends of it.
		reloadFails: {"postfix/master.cf": postfixMaster("{busy} inet n - n - - smtpd")},
		wrong:       {"postfix/main.cf": postfixMain("other"), "certs/other.pem": "{otherkey}{othercert}"},
	},
	refused: "the key in certs/mail.pem is not that of the certificate",
	prepare: func(t *testing.T, p *place) {
		runShell(t, p, "mkdir run/queue run/data && chown postfix run/data")
	},
	reload: `if alive; then
	postfix -c {current}/postfix reload
else
	postfix -c {current}/postfix start
fi
tr -d ' ' <run/queue/pid/master.pid >run/pid
`,
	checks: []string{

		"type=tls,addr={addr},sni=site.test,starttls=smtp,cert=certs/mail.pem",
		"type=tls,addr={host}:10465,sni=site.test,cert=certs/mail.pem",
	},
	served: func(p *place) (string, error) {
		leaf, err := mail(p)
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf})), err
	},
	ask: func(p *place) error {
		_, err := mail(p)
		return err
	},
}

// mail greets the server, asks for TLS, and leaves after one more word. It returns
// the certificate that it has seen.
func mail(p *place) ([]byte, error) {
	conn, err := net.DialTimeout("tcp", p.addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second)) // no error: it is open
	c, err := smtp.NewClient(conn, "site.test")
	if err != nil {
		return nil, err
	}
	if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true, ServerName: "site.test"}); err != nil {
		return nil, err
	}
	state, _ := c.TLSConnectionState()
	if err := c.Noop(); err != nil {
		return nil, err
	}
	return state.PeerCertificates[0].Raw, c.Quit()
}

// postfixMain returns main.cf with this certificate.
func postfixMain(cert string) string {
	return `compatibility_level = 3.6
queue_directory = {dir}/run/queue
data_directory = {dir}/run/data
myhostname = mail.site.test
inet_protocols = ipv4
mydestination =
alias_maps =
smtpd_peername_lookup = no
local_transport = error:nobody is here
maillog_file = {dir}/run/mail.log
maillog_file_prefixes = {dir}
smtpd_tls_chain_files = $config_directory/../certs/` + cert + `.pem
smtpd_tls_security_level = may
smtpd_client_connection_count_limit = 0
`
}

// postfixMaster returns master.cf with a line more.
func postfixMaster(more string) string {
	return `{addr}    inet  n       -       n       -       -       smtpd
{host}:10465  inet  n       -       n       -       -       smtpd
  -o smtpd_tls_wrappermode=yes
` + more + `
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
proxymap  unix  -       -       n       -       -       proxymap
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
anvil     unix  -       -       n       -       1       anvil
postlog   unix-dgram n  -       n       -       1       postlogd
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
`
}

// runShell runs shell commands in the place.
func runShell(t *testing.T, p *place, commands string) {
	t.Helper()
	shell(t, p.dir, p.fill(commands, nil))
}

// shell runs shell commands in a directory.
func shell(t *testing.T, dir, commands string) {
	t.Helper()
	cmd := exec.Command("sh", "-euc", commands)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", commands, err, out)
	}
}
