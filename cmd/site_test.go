package cmd_test

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
)

// A site is one test's world below a directory: a registry and an agent, each
// at most once at a time, keys, and OpenSSH's configuration. The operator's home
// is home/, the registry's directory registry/, the agent's agent/.
type site struct {
	dir     string
	host    string // of the registry: a loopback address that no other test uses
	addr    string // of the registry, the same again after a restart
	running map[string]*daemon
	seen    map[string]int // by file, how far await has read
	under   []string       // the command that runs the registry; none: it runs by itself
}

type siteKey struct{}

// sites counts the loopback addresses that are taken.
var sites atomic.Uint32

// freeHost returns a loopback address of this process's own: a port that is
// free there stays free.
func freeHost() string {
	n := sites.Add(1)
	return fmt.Sprintf("127.%d.%d.%d", 16+os.Getpid()%200, 1+n/250, 1+n%250)
}

// freeAddr returns an address to listen on that nobody else will take.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(freeHost(), "0"))
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func newSite(dir string) (*site, error) {
	s := &site{dir: dir, host: freeHost(), running: map[string]*daemon{}, seen: map[string]int{}}
	for _, d := range []string{"home/.ssh", "registry", "agent"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	for _, name := range keyNames {
		for _, end := range []string{"", ".pub"} {
			if err := copyFile(filepath.Join(keyDir, name+end), s.key(name)+end); err != nil {
				return nil, err
			}
		}
	}
	for to, from := range map[string]string{"operator.keys": "operator", "service.keys": "agent"} {
		if err := copyFile(s.key(from)+".pub", filepath.Join(dir, "registry", to)); err != nil {
			return nil, err
		}
	}
	return s, s.know("", nil)
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// key returns the path of a private key: the operator's is where ssh looks.
func (s *site) key(name string) string {
	if name == "operator" {
		name = "id_ed25519"
	}
	return filepath.Join(s.dir, "home/.ssh", name)
}

// env returns the variables of the site's programs.
func (s *site) env() []string {
	return []string{
		"PATH=" + binDir + string(filepath.ListSeparator) + os.Getenv("PATH"),
		"HOME=" + filepath.Join(s.dir, "home"), "USER=ops", "LC_ALL=C", "TZ=UTC", "SSH_AUTH_SOCK=",
		"TMPDIR=" + s.dir,
		"GORACE=atexit_sleep_ms=0", // programs with the race detector take a second to end
		"DEPLOY_REGISTRY_ADDR=" + s.listenOn(),
		"DEPLOY_REGISTRY_ADDR_FILE=" + filepath.Join(s.dir, "registry.addr"),
		"DEPLOY_REGISTRY_DIR=" + filepath.Join(s.dir, "registry"),
		"DEPLOY_REGISTRY_OPAUTH=" + filepath.Join(s.dir, "registry/operator.keys"),
		"DEPLOY_REGISTRY_SRVAUTH=" + filepath.Join(s.dir, "registry/service.keys"),
		"DEPLOYCTL_ADDR=" + cmp.Or(s.addr, net.JoinHostPort(s.host, "1")),
		"DEPLOY_AGENT_ADDR=" + cmp.Or(s.addr, net.JoinHostPort(s.host, "1")),
		"DEPLOY_AGENT_KEY=" + s.key("agent"),
		"DEPLOY_AGENT_DIR=" + filepath.Join(s.dir, "agent"),
		"DEPLOY_AGENT_STATE=" + filepath.Join(s.dir, "state.json"),
		"DEPLOY_AGENT_POLL=50ms",
	}
}

func (s *site) listenOn() string {
	if s.addr != "" {
		return s.addr
	}
	return net.JoinHostPort(s.host, "0")
}

func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

// start starts a program of ours; what it says goes to NAME.log.
func (s *site) start(name, program string, env []string, args ...string) error {
	if s.running[name] != nil {
		return fmt.Errorf("%s is running already", name)
	}
	d, err := startDaemon(s.dir, append(s.env(), env...), s.file(name+".log"), program, args...)
	if err == nil {
		s.running[name] = d
	}
	return err
}

// startRegistry returns when the registry listens, and everybody knows its
// address and key. It gets the same address each time.
func (s *site) startRegistry(env []string, args ...string) error {
	addrFile := s.file("registry.addr")
	if err := os.RemoveAll(addrFile); err != nil {
		return err
	}
	command := slices.Concat(s.under, []string{"deploy-registry"}, args)
	if err := s.start("registry", command[0], env, command[1:]...); err != nil {
		return err
	}
	var text []byte
	err := poll(func() (bool, error) {
		if text, _ = os.ReadFile(addrFile); len(text) > 0 {
			return true, nil
		}
		if s.running["registry"].ended() {
			return false, fmt.Errorf("registry ended: %s", s.tail("registry.log"))
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	s.addr = strings.TrimSpace(string(text))
	dir := s.file("registry")
	if i := slices.Index(args, "-dir"); i >= 0 {
		dir = args[i+1]
	}
	pem, err := os.ReadFile(filepath.Join(dir, "host_key"))
	if err != nil {
		return err
	}
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		return err
	}
	return s.know(s.addr, key.PublicKey())
}

// know writes OpenSSH's configuration and known_hosts. "reg" is the registry.
func (s *site) know(addr string, key ssh.PublicKey) error {
	host, port, known := s.host, "1", ""
	if addr != "" {
		var err error
		if host, port, err = net.SplitHostPort(addr); err != nil {
			return err
		}
		known = fmt.Sprintf("[%s]:%s,[localhost]:%s %s", host, port, port, ssh.MarshalAuthorizedKey(key))
	}
	ssh := filepath.Join(s.dir, "home/.ssh")
	config := fmt.Sprintf(`Host reg
HostName %s
Port %s
Host *
User ops
BatchMode yes
LogLevel ERROR
IdentitiesOnly yes
IdentityAgent none
StrictHostKeyChecking yes
UserKnownHostsFile %s/known_hosts
GlobalKnownHostsFile /dev/null
Match user deploy-agent
IdentityFile %s
Match user ops
IdentityFile %s
`, host, port, ssh, s.key("agent"), s.key("operator"))
	if err := os.WriteFile(filepath.Join(ssh, "config"), []byte(config), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(ssh, "known_hosts"), []byte(known), 0o600)
}

// text returns what a file of the site holds; nothing where there is none.
func (s *site) text(name string) string {
	b, _ := os.ReadFile(s.file(name))
	return string(b)
}

// tail returns the end of a file of the site, for messages: from where the race
// detector has reported, if it has.
func (s *site) tail(name string) string {
	text := s.text(name)
	if at := strings.Index(text, "WARNING: DATA RACE"); at >= 0 {
		return text[at:]
	}
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "")
}

// kill ends a daemon as a power cut would; one that has ended is forgotten.
func (s *site) kill(name string) {
	s.running[name].kill()
	delete(s.running, name)
}

// close ends what still runs.
func (s *site) close() {
	for name := range s.running {
		s.kill(name)
	}
}
