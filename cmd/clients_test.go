package cmd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"deploytools/layers/digest"
)

// uploadTest is one way in which a program uploads.
type uploadTest struct {
	name string
	run  string // for bash, in a directory with the files
	// files are what the registry has afterwards, in order of their names:
	// 1.tar.gz, tree/2.tar.gz and tree/sub/3.tar.gz are there.
	files string
	// part: a half of 1.tar.gz was cut off before.
	part bool
}

// shellHelp is what the rows share: each program's way to be told of the
// registry, its key and ours.
const shellHelp = `set -eu
ssh="-F $HOME/.ssh/config"
putty="-batch -P $PORT -i $HOME/key.ppk -hostkey $HOSTFP"
curl() { command curl -sS --key "$KEY" --pubkey "$KEY.pub" --hostpubsha256 "${HOSTFP#SHA256:}" "$@"; }
lftp() { command lftp -c "set sftp:connect-program 'ssh -a -x $ssh'; set cmd:fail-exit yes; open -u ops, sftp://reg; $1"; }
rclone() {
	RCLONE_CONFIG_REG_TYPE=sftp RCLONE_CONFIG_REG_HOST=$HOST RCLONE_CONFIG_REG_PORT=$PORT RCLONE_CONFIG_REG_USER=ops \
		RCLONE_CONFIG_REG_KEY_FILE=$KEY RCLONE_CONFIG_REG_KNOWN_HOSTS_FILE=$HOME/.ssh/known_hosts \
		RCLONE_CONFIG="$HOME/rclone.conf" command rclone -q "$@"
}
# What Debian's Python says about its own modules is no concern of ours.
python() { /usr/bin/python3 -W ignore - "$@"; }
paramiko() { (echo "$paramiko"; cat) | python; }
paramiko="
import os, paramiko
c = paramiko.SSHClient()
c.load_host_keys(os.environ['HOME'] + '/.ssh/known_hosts')
c.connect(os.environ['HOST'], int(os.environ['PORT']), 'ops', key_filename=os.environ['KEY'], allow_agent=False, look_for_keys=False)
s = c.open_sftp()
"
asyncssh() { (echo "$asyncssh"; sed 's/^/            /'; echo 'asyncio.run(main())') | python; }
asyncssh="
import os, asyncio, asyncssh
async def main():
    async with asyncssh.connect(os.environ['HOST'], int(os.environ['PORT']), username='ops', client_keys=[os.environ['KEY']], known_hosts=os.environ['HOME'] + '/.ssh/known_hosts', agent_path=None) as c:
        async with c.start_sftp_client() as s:
"
foreign() { perl -MNet::SFTP::Foreign -e 'my $s = Net::SFTP::Foreign->new("reg", more => ["-F", "$ENV{HOME}/.ssh/config"]); $s->die_on_error("connect"); '"$1"; }
mounted() {
	mkdir mnt
	sshfs $ssh reg:/ mnt
	trap 'cd ..; fusermount -u mnt' EXIT
	cd mnt
}
`

const one, tree = "1.tar.gz", "tree/2.tar.gz tree/sub/3.tar.gz"

var uploadTests = []uploadTest{
	{"sftp put", `echo 'put 1.tar.gz' | sftp -b - $ssh reg`, one, false},
	{"sftp put -p", `echo 'put -p 1.tar.gz' | sftp -b - $ssh reg`, one, false},
	{"sftp put -f", `echo 'put -f 1.tar.gz' | sftp -b - $ssh reg`, one, false},
	{"sftp put -r", `echo 'put -pr tree' | sftp -b - $ssh reg`, tree, false},
	{"sftp put into a directory", "printf '%s\n' 'mkdir d' 'cd d' 'put 1.tar.gz' 'ls -la' 'chmod 640 1.tar.gz' 'df' | sftp -b - $ssh reg", one, false},
	{"sftp put over what is there", "printf '%s\n' 'put tree/2.tar.gz x' 'put 1.tar.gz x' 'rm x' 'put 1.tar.gz x' | sftp -b - $ssh reg", one, false},
	{"sftp rename", "printf '%s\n' 'put 1.tar.gz x' 'put tree/2.tar.gz y' 'rename x y' 'get y.sha256' 'ls y' 'get y back' | sftp -b - $ssh reg; cmp back 1.tar.gz; grep -q $(sha256sum <1.tar.gz | cut -d' ' -f1) y.sha256", one + " tree/2.tar.gz", false},
	{"sftp mkdir, rmdir and rm", "printf '%s\n' 'mkdir d' 'mkdir d/e' 'put 1.tar.gz d/e/x' 'rename d/e f' 'rmdir d' 'put tree/2.tar.gz gone' 'rm gone' 'ls -la f' | sftp -b - $ssh reg", one, false},
	{"sftp reput", `echo 'reput 1.tar.gz' | sftp -b - $ssh reg`, one, true},
	{"sftp put over a part", `echo 'put 1.tar.gz' | sftp -b - $ssh reg`, one, true},
	{"scp", `scp $ssh 1.tar.gz reg:`, one, false},
	{"scp to a name", `scp $ssh 1.tar.gz reg:x`, one, false},
	{"scp to a directory", `scp $ssh 1.tar.gz reg:/dir/`, one, false},
	{"scp several", `scp $ssh tree/2.tar.gz tree/sub/3.tar.gz reg:dir`, tree, false},
	{"scp -p", `scp -p $ssh 1.tar.gz reg:`, one, false},
	{"scp -r", `scp -rp $ssh tree reg:`, tree, false},
	{"scp over a part", `scp $ssh 1.tar.gz reg:`, one, true},
	{"curl", `curl -T 1.tar.gz sftp://ops@$HOST:$PORT/`, one, false},
	{"curl --ftp-create-dirs", `curl --ftp-create-dirs -T 1.tar.gz sftp://ops@$HOST:$PORT/new/dir/x`, one, false},
	{"curl from a pipe", `cat 1.tar.gz | curl -T - sftp://ops@$HOST:$PORT/x`, one, false},
	{"curl -C -", `curl -C - -T 1.tar.gz sftp://ops@$HOST:$PORT/1.tar.gz`, one, true},
	{"psftp put", `echo 'put 1.tar.gz' >b; psftp $putty -b b ops@$HOST`, one, false},
	{"psftp put -r", `printf '%s\n' 'put -r tree' 'ls' 'ren tree t' 'mkdir d' 'rmdir d' >b; psftp $putty -b b ops@$HOST`, tree, false},
	{"psftp reput", `echo 'reput 1.tar.gz' >b; psftp $putty -b b ops@$HOST`, one, true},
	{"pscp", `pscp -q $putty 1.tar.gz ops@$HOST:`, one, false},
	{"pscp -r", `pscp -q -p -r $putty tree ops@$HOST:`, tree, false},
	{"lftp put", `lftp 'put 1.tar.gz; ls; cat 1.tar.gz.sha256'`, one, false},
	{"lftp mirror -R", `lftp 'mirror -R tree up; mirror -R tree up; ls up'`, tree, false},
	{"lftp mirror -R in parallel", `lftp 'mirror -R -P 4 tree'`, tree, false},
	{"lftp put -c", `lftp 'put -c 1.tar.gz'`, one, true},
	{"lftp mirror -R -c", `mkdir up; cp 1.tar.gz up/; lftp 'mirror -R -c up /'`, one, true},
	{"rclone copy", `rclone copy 1.tar.gz reg:; rclone check --download=false 1.tar.gz reg:`, one, false},
	{"rclone copy a tree", `rclone copy tree reg:up; rclone check tree reg:up; rclone copy tree reg:up; rclone size reg:up; rclone about reg:`, tree, false},
	{"rclone copyto over a part", `rclone copyto 1.tar.gz reg:1.tar.gz`, one, true},
	{"rclone sync", `rclone copyto tree/2.tar.gz reg:up/old; rclone sync tree reg:up; rclone hashsum sha1 reg:up`, tree, false},
	{"rclone rcat", `cat 1.tar.gz | rclone rcat reg:x`, one, false},
	{"paramiko put with confirm", `echo 'assert s.put("1.tar.gz", "1.tar.gz", confirm=True).st_size == os.stat("1.tar.gz").st_size' | paramiko`, one, false},
	{"paramiko writes and appends", `paramiko <<E
b = open("1.tar.gz", "rb").read()
s.mkdir("d")
with s.open("d/x", "wb") as f: f.write(b[:1000])
with s.open("d/x", "ab") as f: f.write(b[1000:])
s.posix_rename("d/x", "y")
s.utime("y", None)
assert s.stat("y").st_size == len(b) and s.open("y").read() == b
E`, one, false},
	{"asyncssh put", `echo 'await s.put("1.tar.gz", preserve=True)' | asyncssh`, one, false},
	{"asyncssh put a tree", `echo 'await s.put("tree", recurse=True, preserve=True)' | asyncssh`, tree, false},
	{"Net::SFTP::Foreign put", `foreign '$s->put("1.tar.gz", "x") or die $s->error'`, one, false},
	{"Net::SFTP::Foreign put atomic", `foreign '$s->put("1.tar.gz", "x", atomic => 1) or die $s->error'`, one, false},
	{"Net::SFTP::Foreign put resume", `foreign '$s->put("1.tar.gz", "1.tar.gz", resume => 1) or die $s->error'`, one, true},
	{"Net::SFTP::Foreign rput", `foreign '$s->rput("tree", "up"); die $s->error if $s->error'`, tree, false},
	{"sshfs cp", `mounted; cp ../1.tar.gz .; cmp 1.tar.gz ../1.tar.gz; sha256sum --status -c 1.tar.gz.sha256; df . >/dev/null`, one, false},
	{"sshfs cp -rp", `mounted; cp -rp ../tree .; mv tree/2.tar.gz x; mkdir d; mv x d/; touch d/x; chmod 600 d/x; ls -lR d tree >/dev/null; cmp d/x ../tree/2.tar.gz`, tree, false},
	{"sshfs rm -r", `mounted; cp -r ../tree up; rm -r up; cp ../1.tar.gz x`, one, false},
}

// complaint is how programs speak of trouble.
var complaint = regexp.MustCompile(`(?i)\b(error|fail|failed|failure|denied|unsupported|cannot|can't|couldn't|unable|refused|warning|lost|not found|no such)\b`)

// TestEveryProgramUploads: U-04, B-31 and the rest of those that Debian has. Each
// ends well and says nothing of trouble, and the registry has the very bytes,
// and nothing else.
func TestEveryProgramUploads(t *testing.T) {
	t.Parallel()
	s := startSite(t, "-maxver", "0")
	s.equipClients(t)
	for i, test := range uploadTests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := os.Stat("/dev/fuse"); strings.HasPrefix(test.name, "sshfs") && err != nil {
				t.Skipf("SKIPPED, NOTHING IS KNOWN ABOUT sshfs HERE: %v", err)
			}
			dir := s.uploadFiles(t, i)
			if test.part {
				s.cutOff(t, filepath.Join(dir, one))
			}
			cmd := s.command("bash", "-c", shellHelp+test.run)
			cmd.Dir = dir
			host, port, _ := strings.Cut(s.addr, ":")
			cmd.Env = append(cmd.Env, "HOST="+host, "PORT="+port, "KEY="+s.key("operator"), "HOSTFP="+s.hostFingerprint())
			out, err := cmd.CombinedOutput()
			if err != nil || complaint.Match(out) {
				t.Errorf("%s: %v\n%s\nregistry.log: %s", test.run, err, out, s.tail("registry.log"))
			}
			for j, name := range strings.Fields(test.files) {
				s.claim(t, fmt.Sprintf("v%d.%d", i, j), filepath.Join(dir, name))
			}
			s.wantNoUploads(t)
			s.emptyDropBox(t)
		})
	}
}

// equipClients makes what programs need that are not OpenSSH's.
func (s *site) equipClients(t *testing.T) {
	t.Helper()
	home := filepath.Dir(filepath.Dir(s.key("operator")))
	cmd := exec.Command("puttygen", s.key("operator"), "-o", filepath.Join(home, "key.ppk"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("puttygen: %v: %s: run scripts/deps.sh", err, out)
	}
}

func (s *site) hostFingerprint() string {
	return regexp.MustCompile(`SHA256:[A-Za-z0-9+/]*`).FindString(s.text("registry.log"))
}

// uploadFiles makes the files of a test, which differ from those of all others.
func (s *site) uploadFiles(t *testing.T, seed int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for i, name := range strings.Fields(one + " " + tree) {
		noise := make([]byte, 300_000) // several packets of every program
		rand.NewChaCha8([32]byte{byte(seed), byte(i)}).Read(noise)
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, archiveOf(map[string]string{"noise": string(noise)}, nil), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// dial connects as the operator, by the library.
func (s *site) dial(t *testing.T) *ssh.Client {
	t.Helper()
	pem, err := os.ReadFile(s.key("operator"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ssh.Dial("tcp", s.addr, &ssh.ClientConfig{
		User: "ops", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), // of a loopback address of ours
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// cutOff uploads a half of the file and breaks the connection.
func (s *site) cutOff(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	conn := s.dial(t)
	c, err := sftp.NewClient(conn)
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Create(filepath.Base(file))
	if err == nil {
		_, err = f.Write(b[:len(b)/2])
	}
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	err = poll(func() (bool, error) {
		out, err := s.command("ssh", "reg", "uploads").Output()
		return bytes.Contains(out, []byte(" partial ")), err
	})
	if err != nil {
		t.Fatalf("the upload is no part: %v", err)
	}
}

// claim makes a version of what was uploaded from the file.
func (s *site) claim(t *testing.T, version, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cmd := s.command("ssh", "reg", "addver", "-name", "code", "-version", version, "-hash", digest.Of(b).String(), "-must-be-new")
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("addver of %s: %v: %s", filepath.Base(file), err, out)
	}
}

// wantNoUploads expects that nothing but the versions is left.
func (s *site) wantNoUploads(t *testing.T) {
	t.Helper()
	var list struct {
		Uploads []struct{ Path, Verdict string }
	}
	out, err := s.command("ssh", "reg", "uploads", "-json").Output()
	if err == nil {
		err = json.Unmarshal(out, &list)
	}
	if err != nil || len(list.Uploads) != 0 {
		t.Errorf("uploads left: %+v, %v", list.Uploads, err)
	}
}

// emptyDropBox removes everything, so that the next test starts with nothing.
func (s *site) emptyDropBox(t *testing.T) {
	t.Helper()
	c, err := sftp.NewClient(s.dial(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	top, err := c.ReadDir("/")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range top {
		switch e.Name() {
		case "configs", "files", "by-hash":
		default:
			if err := c.RemoveAll("/" + e.Name()); err != nil {
				t.Errorf("RemoveAll(%s) = %v", e.Name(), err)
			}
		}
	}
}
