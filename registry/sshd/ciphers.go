package sshd

import (
	"slices"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"
)

// ciphers returns what is offered, the fastest first. A client takes the first
// of its own list that is also here (RFC 4253 section 7.1), and OpenSSH's begins
// with chacha20, which Go computes without help of the CPU. So chacha20 is
// offered only where AES is no faster: see docs/decisions/0005-ciphers.md.
func ciphers(fastAES bool) []string {
	list := append(slices.Clone(onlyGCM), ssh.CipherAES128CTR, ssh.CipherAES192CTR, ssh.CipherAES256CTR)
	if !fastAES {
		list = append(list, ssh.CipherChaCha20Poly1305)
	}
	return list
}

// onlyGCM are the ciphers that authenticate by themselves, with help of the CPU.
var onlyGCM = []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM}

// hasFastAES reports whether the CPU helps with both modes of AES: with GCM,
// and with what a client without GCM takes, CTR and a SHA-256 of each packet.
func hasFastAES() bool {
	x, arm := cpu.X86, cpu.ARM64
	return x.HasAES && x.HasPCLMULQDQ && x.HasSSE41 && x.HasAVX2 ||
		arm.HasAES && arm.HasPMULL && arm.HasSHA2
}
