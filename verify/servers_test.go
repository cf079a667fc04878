package verify

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"deploytools/verify/spec"
)

// program is somebody else's, run in a directory of its own at ports of its own.
type program struct {
	t     *testing.T
	dir   string
	chain string // PEM files of the certificate with its issuer, and the key
	key   string
	user  string // whose the directory is; empty: root
	ports map[string]string
}

// port is a free port with a name, the same each time. Nobody holds it until the
// program does: it is one that was free a moment ago.
func (p *program) port(name string) string {
	p.t.Helper()
	if p.ports[name] == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			p.t.Fatal(err)
		}
		_, p.ports[name], _ = net.SplitHostPort(l.Addr().String())
		l.Close()
	}
	return p.ports[name]
}

func (p *program) path(name string) string { return filepath.Join(p.dir, name) }

// write writes a file below the directory, which may say {dir}, {chain}, {key}
// and {NAME} for a port.
func (p *program) write(name, content string) {
	p.t.Helper()
	pairs := []string{"{dir}", p.dir, "{chain}", p.chain, "{key}", p.key}
	for _, port := range []string{"smtp", "smtps", "imap", "imaps", "pop3", "pop3s", "sieve", "ftp", "ldap", "ldaps", "postgres"} {
		if strings.Contains(content, "{"+port+"}") {
			pairs = append(pairs, "{"+port+"}", p.port(port))
		}
	}
	if err := os.WriteFile(p.path(name), []byte(strings.NewReplacer(pairs...).Replace(content)), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// as is a command of the program's, as its user.
func (p *program) as(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = p.dir
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=" + p.dir, "MAIL_CONFIG=" + p.dir}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if p.user != "" {
		uid, gid := p.ids(p.user)
		c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return c
}

func (p *program) ids(name string) (uid, gid int) {
	p.t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		p.t.Fatal(err)
	}
	uid, errUser := strconv.Atoi(u.Uid)
	gid, errGroup := strconv.Atoi(u.Gid)
	if err := errors.Join(errUser, errGroup); err != nil {
		p.t.Fatal(err)
	}
	return uid, gid
}

func (p *program) mkdir(name string) {
	p.t.Helper()
	if err := os.MkdirAll(p.path(name), 0o755); err != nil {
		p.t.Fatal(err)
	}
}

// give makes the user the owner.
func (p *program) give(to, name string) {
	p.t.Helper()
	uid, gid := p.ids(to)
	if err := os.Chown(p.path(name), uid, gid); err != nil {
		p.t.Fatal(err)
	}
}

// start runs the program in the foreground until the test ends, and then ends
// its whole group.
func (p *program) start(name string, args ...string) {
	p.t.Helper()
	log, err := os.Create(p.path("output"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	c := p.as(context.Background(), name, args...)
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Wait()
	}()
	p.t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
		}
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		<-ended
		if p.t.Failed() {
			b, _ := os.ReadFile(p.path("output"))
			p.t.Logf("%s says: %s", name, b)
		}
	})
}

// await reports whether the port accepts connections, as soon as it does.
func (p *program) await(port string) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); ; <-tick.C {
		c, err := net.Dial("tcp", "127.0.0.1:"+p.port(port))
		if err == nil {
			c.Close()
			return true
		}
		if time.Now().After(end) {
			p.t.Errorf("%s does not listen: %v", port, err)
			return false
		}
	}
}

func startPostfix(p *program) {
	p.write("main.cf", `
compatibility_level = 3.6
myhostname = mail.example.org
queue_directory = {dir}/queue
data_directory = {dir}/data
maillog_file = {dir}/queue/log
maillog_file_prefixes = {dir}
inet_interfaces = loopback-only
alias_maps =
alias_database =
local_recipient_maps =
smtpd_tls_chain_files = {key}, {chain}
smtpd_tls_security_level = may
`)
	p.write("master.cf", `
127.0.0.1:{smtp}  inet n - n - - smtpd
127.0.0.1:{smtps} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`)
	for _, d := range strings.Fields("pid public private maildrop incoming active deferred defer bounce corrupt hold flush trace saved") {
		p.mkdir("queue/" + d)
		if d != "pid" {
			p.give("postfix", "queue/"+d)
		}
	}
	p.mkdir("data")
	p.give("postfix", "data")
	p.start("/usr/lib/postfix/sbin/master", "-c", p.dir, "-d")
}

func startDovecot(p *program) {
	p.write("dovecot.conf", `
base_dir = {dir}/run
state_dir = {dir}/state
log_path = /dev/stderr
protocols = imap pop3 sieve
listen = 127.0.0.1
ssl = yes
ssl_cert = <{chain}
ssl_key = <{key}
mail_location = maildir:{dir}/mail
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home={dir}/home
}
service imap-login {
  inet_listener imap {
    port = {imap}
  }
  inet_listener imaps {
    port = {imaps}
    ssl = yes
  }
}
service pop3-login {
  inet_listener pop3 {
    port = {pop3}
  }
  inet_listener pop3s {
    port = {pop3s}
    ssl = yes
  }
}
service managesieve-login {
  inet_listener sieve {
    port = {sieve}
  }
}
`)
	p.start("dovecot", "-F", "-c", p.path("dovecot.conf"))
}

func startPostgresql(p *program) {
	p.give("postgres", ".")
	p.user = "postgres"
	bin, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(bin) == 0 {
		p.t.Fatal("no PostgreSQL")
	}
	c := p.as(p.t.Context(), bin[0]+"/initdb", "-D", p.path("data"), "--no-sync", "-A", "trust")
	if out, err := c.CombinedOutput(); err != nil {
		p.t.Fatalf("initdb: %v: %s", err, out)
	}
	for name, file := range map[string]string{"server.crt": p.chain, "server.key": p.key} {
		b, err := os.ReadFile(file)
		if err := errors.Join(err, os.WriteFile(p.path("data/"+name), b, 0o600)); err != nil {
			p.t.Fatal(err)
		}
		p.give("postgres", "data/"+name)
	}
	p.start(bin[0]+"/postgres", "-D", p.path("data"), "-k", p.dir, "-h", "127.0.0.1", "-p", p.port("postgres"), "-c", "ssl=on", "-c", "fsync=off")
}

func startVsftpd(p *program) {
	p.mkdir("empty")
	p.write("vsftpd.conf", `
listen=YES
listen_address=127.0.0.1
listen_port={ftp}
background=NO
anonymous_enable=YES
ssl_enable=YES
rsa_cert_file={chain}
rsa_private_key_file={key}
secure_chroot_dir={dir}/empty
xferlog_enable=NO
`)
	p.start("vsftpd", p.path("vsftpd.conf"))
}

func startSlapd(p *program) {
	p.write("slapd.conf", `
include /etc/ldap/schema/core.schema
pidfile {dir}/pid
TLSCertificateFile {chain}
TLSCertificateKeyFile {key}
`)
	p.start("slapd", "-d", "0", "-f", p.path("slapd.conf"), "-h",
		fmt.Sprintf("ldap://127.0.0.1:%s ldaps://127.0.0.1:%s", p.port("ldap"), p.port("ldaps")))
}

// Programs that people run, from the distribution, as they come. V-15: tests
// that went through without looking at the programs they named.
func TestV15RealProgramsShowTheirCertificates(t *testing.T) {
	for _, file := range []string{"/usr/lib/postfix/sbin/master", "/usr/sbin/dovecot", "/usr/lib/dovecot/managesieve-login", "/usr/sbin/vsftpd", "/usr/sbin/slapd"} {
		if _, err := os.Stat(file); err != nil {
			needs(t, "the programs that scripts/deps.sh --programs installs: "+err.Error())
		}
	}
	if os.Geteuid() != 0 {
		needs(t, "root, to give their directories to the programs")
	}
	ca := newCA(t, "ca", nil)
	cert := issue(t, &ca, rsaKey(t), nil)
	keyDER, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	root := tree(t, "chain.pem", pemFile(cert, ca))
	for name, b := range map[string][]byte{"key.pem": pemOf("PRIVATE KEY", keyDER), "ca.pem": pemFile(ca), "other.pem": pemFile(issue(t, &ca, rsaKey(t), nil))} {
		if err := os.WriteFile(filepath.Join(root, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, row := range map[string]struct {
		start  func(*program)
		starts map[string]string // port and its word for starttls; none: TLS at once
	}{
		"postfix":    {startPostfix, map[string]string{"smtp": "smtp", "smtps": ""}},
		"dovecot":    {startDovecot, map[string]string{"imap": "imap", "imaps": "", "pop3": "pop3", "pop3s": "", "sieve": "sieve"}},
		"postgresql": {startPostgresql, map[string]string{"postgres": "postgres"}},
		"vsftpd":     {startVsftpd, map[string]string{"ftp": "ftp"}},
		"slapd":      {startSlapd, map[string]string{"ldap": "ldap", "ldaps": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The names of sockets in it are to be short.
			dir, err := os.MkdirTemp("", name)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			p := &program{t: t, dir: dir, chain: filepath.Join(root, "chain.pem"), key: filepath.Join(root, "key.pem"), ports: map[string]string{}}
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			row.start(p)
			var wg sync.WaitGroup
			for port, word := range row.starts {
				wg.Go(func() { p.looks(port, word, root) })
			}
			wg.Wait()
		})
	}
}

// looks at a port with TLS in every way that a check can.
func (p *program) looks(port, word, root string) {
	if !p.await(port) {
		return
	}
	good := spec.Check{Type: spec.TLS, Addr: "127.0.0.1:" + p.port(port), StartTLS: word, SNI: "www.example.org",
		Cert: "chain.pem", Chain: true, Roots: "ca.pem"}
	changed := func(change func(*spec.Check)) spec.Check {
		c := good
		change(&c)
		return c
	}
	atOnce := Handshake
	if word == "" {
		atOnce = ""
	}
	for _, row := range []struct {
		c    spec.Check
		kind Kind
	}{
		{good, ""},
		{changed(func(c *spec.Check) { c.Key = "rsa" }), ""},
		{changed(func(c *spec.Check) { c.Cert = "other.pem" }), WrongCert},
		{changed(func(c *spec.Check) { c.Hostname = "mail.example.org" }), Hostname},
		{changed(func(c *spec.Check) { c.Roots = "other.pem" }), Chain},
		{changed(func(c *spec.Check) { c.StartTLS = "" }), atOnce},
	} {
		if f := lookAt(p.t, row.c, Vars{NewRoot: root}); f.Kind != row.kind {
			p.t.Errorf("%s: %+v, want kind %q", row.c, f, row.kind)
		}
	}
}

// needs skips where the test cannot run, but not in CI, which is to have it all.
func needs(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("CI should have %s", what)
	}
	t.Skipf("needs %s", what)
}
