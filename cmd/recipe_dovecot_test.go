package cmd_test

import (
	"bufio"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

var dovecotRecipe = recipe{
	name:    "dovecot",
	version: `dovecot --version | sed 's, .*,,'`,
	root: files{
		"certs/mail.pem":       "{key}{cert}",
		"dovecot/dovecot.conf": dovecotConf("mail", ""),
	},
	spoiled: map[string]files{
		validateFails: {"dovecot/dovecot.conf": dovecotConf("mail", "ssl = perhaps")},
		wrong:         {"dovecot/dovecot.conf": dovecotConf("other", ""), "certs/other.pem": "{otherkey}{othercert}"},
	},
	refused: "Invalid value: perhaps",
	prepare: func(t *testing.T, p *place) {
		runShell(t, p, "mkdir run/mail && chown nobody run/mail")
	},
	reload: `if alive; then
	doveadm -c {current}/dovecot/dovecot.conf reload
else
	rm -f run/dovecot/master.pid # a killed one may not be gone altogether
	dovecot -c {current}/dovecot/dovecot.conf
	until [ -s run/dovecot/master.pid ]; do sleep 0.1; done
	cp run/dovecot/master.pid run/pid
fi
`,
	checks: []string{

		"type=tls,addr={addr},sni=site.test,starttls=imap,cert=certs/mail.pem",
		"type=tls,addr={host}:10993,sni=site.test,cert=certs/mail.pem",
	},
	served: func(p *place) (string, error) {
		leaf, err := imap(p)
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf})), err
	},
	drops: 100, // a login in the moment of a reload
	ask: func(p *place) error {
		_, err := imap(p)
		return err
	},
}

// imap asks for TLS, logs in, says something, and leaves. It returns the certificate that
// it has seen.
func imap(p *place) ([]byte, error) {
	plain, err := net.DialTimeout("tcp", p.addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	plain.SetDeadline(time.Now().Add(20 * time.Second)) // no error: it is open
	in := bufio.NewReader(plain)
	if _, err := in.ReadString('\n'); err != nil {
		return nil, err
	}
	if err := imapSays(plain, in, "a STARTTLS"); err != nil {
		return nil, err
	}
	conn := tls.Client(plain, &tls.Config{InsecureSkipVerify: true, ServerName: "site.test"})
	in = bufio.NewReader(conn)
	for _, command := range []string{"b LOGIN somebody secret", "c NOOP", "d LOGOUT"} {
		if err := imapSays(conn, in, command); err != nil {
			return nil, err
		}
	}
	return conn.ConnectionState().PeerCertificates[0].Raw, nil
}

// imapSays sends a command and reads until its answer.
func imapSays(conn net.Conn, in *bufio.Reader, command string) error {
	if _, err := fmt.Fprint(conn, command+"\r\n"); err != nil {
		return err
	}
	tag, _, _ := strings.Cut(command, " ")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		if answer, ok := strings.CutPrefix(line, tag+" "); ok {
			if !strings.HasPrefix(answer, "OK") {
				return fmt.Errorf("%s: %s", command, line)
			}
			return nil
		}
	}
}

// dovecotConf returns settings with this certificate, and something more.
func dovecotConf(cert, more string) string {
	return `base_dir = {dir}/run/dovecot
log_path = {dir}/run/dovecot.log
protocols = imap
ssl = required
ssl_cert = <../certs/` + cert + `.pem
ssl_key = <../certs/` + cert + `.pem
shutdown_clients = no
mail_location = mbox:~/mail
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home={dir}/run/mail
}
service imap-login {
  inet_listener imap {
    address = {host}
    port = {port}
  }
  inet_listener imaps {
    address = {host}
    port = 10993
  }
}
` + more + "\n"
}
