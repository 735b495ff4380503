package certificate

// rolls reports whether the credential is the account's key.
func (s Settings) rolls() bool { return s.ACME != nil && s.ACME.Rollover }

// Own reports whether the credential is what Keyturn itself asks the authority with.
func (s Settings) Own() bool { return s.rolls() }

// Place returns the key that names the folder in which a credential's target must keep
// it, and the folder; "" for any.
func (s Settings) Place() (key, folder string) {
	if !s.rolls() {
		return "", ""
	}
	return "acme.account", string(keysBeside(s.ACME.Account))
}

// oneKey is what a cutover costs.
const oneKey = "an account has one key at its authority: from its change until current names the next one, whoever reads the one before there is refused"

// checkRollover checks what stands beside acme.rollover, which is of an account and of no
// certificate.
func (s Settings) checkRollover(fault faultFunc) {
	fault.each(map[string]bool{"names": len(s.Names) > 0, "vault": s.Vault != nil, "step-ca": s.StepCA != nil, "roots": s.Roots != "", "probe": len(s.Probe) > 0,
		"crl": s.CRL != "", "adopt": s.Adopt != "", "trigger": s.Trigger != "", "cert-manager": s.CertManager != nil, "rotate-ca": s.RotateCA != nil,
		"acme.profile": s.ACME.Profile != "", "acme.http-01": s.ACME.HTTP01 != nil, "acme.dns-01": s.ACME.DNS01 != nil},
		"make the certificates a credential of their own", "with acme.rollover the credential is the key of an account, and no certificate")
	s.ACME.checkAccount(fault)
	a := s.ACME.Account
	if _, problem := a.Problem(); problem == "" && keysBeside(a) == "" {
		fault("acme.rollover", "write account: {from-file: /FOLDER/NAME/current/key}, as the directory target writes it", "the key of the account is read from no place that the cutover moves")
	}
	s.checkKeyType(fault)
}
