package sshd

import (
	"os/exec"
	"strings"
	"testing"
)

// OpenSSH's client prefers chacha20, then CTR before its version 10. Where AES is
// fast, it is to have GCM, and CTR where it has been told to have nothing else;
// where AES is not, it is not to be kept from chacha20.
func TestOpenSSHTakesTheFasterCipher(t *testing.T) {
	for _, test := range []struct {
		name    string
		fastAES bool
		ciphers string // empty: as the client comes
		want    string
	}{
		{"fast AES", true, "", "cipher: aes128-gcm@openssh.com MAC: <implicit>"},
		{"fast AES, only CTR", true, "aes192-ctr", "cipher: aes192-ctr MAC: hmac-sha2-256-etm@openssh.com"},
		{"fast AES, one GCM", true, "aes128-ctr,aes256-gcm@openssh.com", "cipher: aes256-gcm@openssh.com MAC: <implicit>"},
		{"slow AES", false, "", "cipher: chacha20-poly1305@openssh.com MAC: <implicit>"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDaemon(t)
			d.Server.ssh.Ciphers = ciphers(test.fastAES)
			d.listen(t)
			args := []string{"-v", "help"}
			if test.ciphers != "" {
				args = append([]string{"-c", test.ciphers}, args...)
			}
			_, stderr, status := d.run(t, "", args...)
			if status != 0 || strings.Count(stderr, test.want) != 2 {
				t.Errorf("ssh -v = %d, want %q both ways in:\n%s", status, test.want, stderr)
			}
		})
	}
}

// Every client in use has one of the modes of AES: PuTTY 0.78, paramiko and
// libssh2 only CTR.
func TestEveryModeOfAESConnects(t *testing.T) {
	d := newDaemon(t)
	d.Server.ssh.Ciphers = ciphers(true)
	d.listen(t)
	for _, cipher := range []string{
		"aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr",
	} {
		if _, stderr, status := d.run(t, "", "-c", cipher, "help"); status != 0 {
			t.Errorf("ssh -c %s = %d: %s", cipher, status, stderr)
		}
	}
}

func TestAuditFindsNothingBroken(t *testing.T) {
	for _, fastAES := range []bool{true, false} {
		d := newDaemon(t)
		d.Server.ssh.Ciphers = ciphers(fastAES)
		d.listen(t)
		// Its exit status tells warnings, too.
		out, _ := exec.CommandContext(t.Context(), "ssh-audit", "-n", d.addr).CombinedOutput()
		if !strings.Contains(string(out), "(enc) aes128-gcm@openssh.com") || strings.Contains(string(out), "[fail]") {
			t.Errorf("fast AES %t: ssh-audit says:\n%s", fastAES, out)
		}
	}
}
