package ike

import "strconv"

// Exchange types, IANA "IKEv2 Exchange Types".
const (
	exIKESAInit     = 34
	exIKEAuth       = 35
	exCreateChildSA = 36
	exInformational = 37
	exIntermediate  = 43 // RFC 9242
	exFollowupKE    = 44 // RFC 9370
)

// Payload types, RFC 7296 section 3.2 and RFC 7383 section 4.
const (
	plNone    = 0
	plSA      = 33
	plKE      = 34
	plIDi     = 35
	plIDr     = 36
	plCERT    = 37
	plCERTREQ = 38
	plAUTH    = 39
	plNonce   = 40
	plNotify  = 41
	plDelete  = 42
	plVendor  = 43
	plTSi     = 44
	plTSr     = 45
	plSK      = 46
	plCP      = 47
	plEAP     = 48
	plSKF     = 53
)

// Protocol identifiers, RFC 7296 section 3.3.1.
const (
	ProtoIKE = 1
	ProtoAH  = 2
	ProtoESP = 3
)

// Transform types, RFC 7296 section 3.3.2 and RFC 9370 section 2.2.2.
const (
	TransformENCR  = 1
	TransformPRF   = 2
	TransformINTEG = 3
	TransformKE    = 4
	TransformESN   = 5
	TransformADDKE = 6 // additional key exchange 1 of 7; 6 to 12
)

// Transform IDs this package knows, from the IANA registries.
const (
	EncrNull        = 11
	EncrAESCBC      = 12
	EncrAESCTR      = 13 // RFC 3686; of child SAs only, as the two others
	EncrAESGMAC     = 21 // ENCR_NULL_AUTH_AES_GMAC, RFC 4543: no encryption
	EncrAESGCM16    = 20
	EncrChaCha20    = 28 // ChaCha20-Poly1305, RFC 7634
	PRFSHA1         = 2
	PRFSHA256       = 5
	PRFSHA384       = 6
	PRFSHA512       = 7
	IntegNone       = 0
	IntegSHA1       = 2 // HMAC-SHA1-96
	IntegGMAC128    = 9 // AES-GMAC of AH, RFC 4543
	IntegGMAC192    = 10
	IntegGMAC256    = 11
	IntegSHA256     = 12 // HMAC-SHA2-256-128
	IntegSHA384     = 13 // HMAC-SHA2-384-192
	IntegSHA512     = 14 // HMAC-SHA2-512-256
	KENone          = 0
	KEMODP2048      = 14
	KEMODP3072      = 15
	KEMODP4096      = 16
	KEP256          = 19
	KEP384          = 20
	KEP521          = 21
	KEX25519        = 31
	KEMLKEM768      = 36
	esnNo, esnYes   = 0, 1
	attrKeyLength   = 14 // the one transform attribute, RFC 7296 section 3.3.5
	firstErrorGroup = 16384
)

// Notify message types, RFC 7296 section 3.10.1 and the extensions.
const (
	nUnsupportedCritical = 1
	nInvalidIKESPI       = 4
	nInvalidMajorVersion = 5
	nInvalidSyntax       = 7
	nInvalidMessageID    = 9
	nInvalidSPI          = 11
	nNoProposalChosen    = 14
	nInvalidKEPayload    = 17
	nAuthFailed          = 24
	nSinglePairRequired  = 34
	nNoAdditionalSAs     = 35
	nInternalAddrFailure = 36
	nFailedCPRequired    = 37
	nTSUnacceptable      = 38
	nInvalidSelectors    = 39
	nUnacceptableAddrs   = 40
	nUnexpectedNAT       = 41
	nTemporaryFailure    = 43
	nChildSANotFound     = 44
	nStateNotFound       = 47

	nInitialContact    = 16384
	nIPCompSupported   = 16387
	nNATSource         = 16388
	nNATDest           = 16389
	nCookie            = 16390
	nUseTransport      = 16391
	nRekeySA           = 16393
	nNoTFC             = 16394
	nMobikeSupported   = 16396
	nAdditionalIP4     = 16397
	nAdditionalIP6     = 16398
	nNoAdditionalAddrs = 16399
	nUpdateSAAddrs     = 16400
	nCookie2           = 16401
	nAuthLifetime      = 16403 // RFC 4478
	nChildless         = 16418
	nFragmentation     = 16430
	nSigHashes         = 16431
	nUsePPK            = 16435
	nPPKIdentity       = 16436
	nNoPPKAuth         = 16437
	nIntermediate      = 16438
	nAdditionalKE      = 16441
	nFullTranscript    = 16447 // IKE_SA_INIT_FULL_TRANSCRIPT_AUTH, draft-ietf-ipsecme-ikev2-downgrade-prevention
)

var notifyNames = map[uint16]string{
	nUnsupportedCritical: "UNSUPPORTED_CRITICAL_PAYLOAD",
	nInvalidIKESPI:       "INVALID_IKE_SPI",
	nInvalidMajorVersion: "INVALID_MAJOR_VERSION",
	nInvalidSyntax:       "INVALID_SYNTAX",
	nInvalidMessageID:    "INVALID_MESSAGE_ID",
	nInvalidSPI:          "INVALID_SPI",
	nNoProposalChosen:    "NO_PROPOSAL_CHOSEN",
	nInvalidKEPayload:    "INVALID_KE_PAYLOAD",
	nAuthFailed:          "AUTHENTICATION_FAILED",
	nSinglePairRequired:  "SINGLE_PAIR_REQUIRED",
	nNoAdditionalSAs:     "NO_ADDITIONAL_SAS",
	nInternalAddrFailure: "INTERNAL_ADDRESS_FAILURE",
	nFailedCPRequired:    "FAILED_CP_REQUIRED",
	nTSUnacceptable:      "TS_UNACCEPTABLE",
	nInvalidSelectors:    "INVALID_SELECTORS",
	nUnacceptableAddrs:   "UNACCEPTABLE_ADDRESSES",
	nUnexpectedNAT:       "UNEXPECTED_NAT_DETECTED",
	nTemporaryFailure:    "TEMPORARY_FAILURE",
	nChildSANotFound:     "CHILD_SA_NOT_FOUND",
	nStateNotFound:       "STATE_NOT_FOUND",
}

func notifyName(t uint16) string {
	if s, ok := notifyNames[t]; ok {
		return s
	}
	return "notify " + strconv.Itoa(int(t))
}

var exchangeNames = map[uint8]string{
	exIKESAInit: "IKE_SA_INIT", exIKEAuth: "IKE_AUTH", exCreateChildSA: "CREATE_CHILD_SA",
	exInformational: "INFORMATIONAL", exIntermediate: "IKE_INTERMEDIATE", exFollowupKE: "IKE_FOLLOWUP_KE",
}

func exchangeName(t uint8) string {
	if s, ok := exchangeNames[t]; ok {
		return s
	}
	return "exchange " + strconv.Itoa(int(t))
}
