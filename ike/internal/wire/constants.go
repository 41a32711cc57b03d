package wire

// ExchangeType is the exchange that a message belongs to. RFC 7296 §3.1
type ExchangeType uint8

const (
	IKESAInit     ExchangeType = 34
	IKEAuth       ExchangeType = 35
	CreateChildSA ExchangeType = 36
	Informational ExchangeType = 37

	IKESessionResume ExchangeType = 38 // RFC 5723
	IKEIntermediate  ExchangeType = 43 // RFC 9242
	IKEFollowupKE    ExchangeType = 44 // RFC 9370
)

// Flags are the header's flag bits. RFC 7296 §3.1
type Flags uint8

const (
	FlagInitiator Flags = 0x08 // sent by the original initiator of the IKE SA
	FlagVersion   Flags = 0x10
	FlagResponse  Flags = 0x20
)

// PayloadType numbers a payload. RFC 7296 §3.2
type PayloadType uint8

const (
	NoNext     PayloadType = 0
	TypeSA     PayloadType = 33
	TypeKE     PayloadType = 34
	TypeIDi    PayloadType = 35
	TypeIDr    PayloadType = 36
	TypeCert   PayloadType = 37
	TypeCReq   PayloadType = 38
	TypeAuth   PayloadType = 39
	TypeNonce  PayloadType = 40
	TypeNotify PayloadType = 41
	TypeDelete PayloadType = 42
	TypeVendor PayloadType = 43
	TypeTSi    PayloadType = 44
	TypeTSr    PayloadType = 45
	TypeSK     PayloadType = 46
	TypeCP     PayloadType = 47
	TypeEAP    PayloadType = 48
	TypeSKF    PayloadType = 53
)

// ProtocolID names the protocol of a proposal, notify or delete. RFC 7296 §3.3.1
type ProtocolID uint8

const (
	ProtoNone ProtocolID = 0
	ProtoIKE  ProtocolID = 1
	ProtoAH   ProtocolID = 2
	ProtoESP  ProtocolID = 3
)

// TransformType is the kind of algorithm. RFC 7296 §3.3.2
type TransformType uint8

const (
	TransformEncr  TransformType = 1
	TransformPRF   TransformType = 2
	TransformInteg TransformType = 3
	TransformKE    TransformType = 4
	TransformESN   TransformType = 5
)

// Transform IDs, from the IANA registry "IKEv2 Parameters".
const (
	EncrAESCBC           uint16 = 12
	EncrAESGCM16         uint16 = 20
	EncrChaCha20Poly1305 uint16 = 28

	PRFHMACSHA256 uint16 = 5
	PRFHMACSHA384 uint16 = 6
	PRFHMACSHA512 uint16 = 7

	IntegNone      uint16 = 0
	IntegSHA256128 uint16 = 12
	IntegSHA384192 uint16 = 13
	IntegSHA512256 uint16 = 14

	KENone     uint16 = 0
	KEMODP2048 uint16 = 14
	KEMODP3072 uint16 = 15
	KEMODP4096 uint16 = 16
	KEECP256   uint16 = 19
	KEECP384   uint16 = 20
	KEECP521   uint16 = 21
	KEX25519   uint16 = 31

	ESNNo  uint16 = 0
	ESNYes uint16 = 1
)

// IDType is the kind of an identity. RFC 7296 §3.5
type IDType uint8

const (
	IDIPv4   IDType = 1
	IDFQDN   IDType = 2
	IDRFC822 IDType = 3
	IDIPv6   IDType = 5
	IDDERDN  IDType = 9
	IDDERGN  IDType = 10
	IDKeyID  IDType = 11
	IDNull   IDType = 13 // RFC 7619
)

// AuthMethod is how a peer proves its identity. RFC 7296 §3.8
type AuthMethod uint8

const (
	AuthRSA       AuthMethod = 1
	AuthSharedKey AuthMethod = 2
	AuthECDSA256  AuthMethod = 9  // RFC 4754
	AuthECDSA384  AuthMethod = 10 // RFC 4754
	AuthECDSA521  AuthMethod = 11 // RFC 4754
	AuthNull      AuthMethod = 13 // RFC 7619
	AuthSignature AuthMethod = 14 // RFC 7427
)

// NotifyType numbers a notification; below 16384 it is an error. RFC 7296 §3.10.1
type NotifyType uint16

const (
	UnsupportedCriticalPayload NotifyType = 1
	InvalidIKESPI              NotifyType = 4
	InvalidMajorVersion        NotifyType = 5
	InvalidSyntax              NotifyType = 7
	InvalidMessageID           NotifyType = 9
	InvalidSPI                 NotifyType = 11
	NoProposalChosen           NotifyType = 14
	InvalidKEPayload           NotifyType = 17
	AuthenticationFailed       NotifyType = 24
	SinglePairRequired         NotifyType = 34
	NoAdditionalSAs            NotifyType = 35
	InternalAddressFailure     NotifyType = 36
	FailedCPRequired           NotifyType = 37
	TSUnacceptable             NotifyType = 38
	InvalidSelectors           NotifyType = 39
	UnacceptableAddresses      NotifyType = 40 // RFC 4555
	UnexpectedNATDetected      NotifyType = 41 // RFC 4555
	TemporaryFailure           NotifyType = 43
	ChildSANotFound            NotifyType = 44

	InitialContact         NotifyType = 16384
	SetWindowSize          NotifyType = 16385
	AdditionalTSPossible   NotifyType = 16386
	IPCompSupported        NotifyType = 16387
	NATDetectionSource     NotifyType = 16388
	NATDetectionDest       NotifyType = 16389
	Cookie                 NotifyType = 16390
	UseTransportMode       NotifyType = 16391
	HTTPCertLookupSupp     NotifyType = 16392
	RekeySA                NotifyType = 16393
	ESPTFCPaddingNotSupp   NotifyType = 16394
	NonFirstFragmentsAlso  NotifyType = 16395
	MOBIKESupported        NotifyType = 16396 // RFC 4555
	AdditionalIP4Address   NotifyType = 16397 // RFC 4555
	AdditionalIP6Address   NotifyType = 16398 // RFC 4555
	NoAdditionalAddresses  NotifyType = 16399 // RFC 4555
	UpdateSAAddresses      NotifyType = 16400 // RFC 4555
	Cookie2                NotifyType = 16401 // RFC 4555
	NoNATsAllowed          NotifyType = 16402 // RFC 4555
	AuthLifetime           NotifyType = 16403 // RFC 4478
	MultipleAuthSupported  NotifyType = 16404 // RFC 4739
	AnotherAuthFollows     NotifyType = 16405 // RFC 4739
	RedirectSupported      NotifyType = 16406 // RFC 5685
	Redirect               NotifyType = 16407 // RFC 5685
	RedirectedFrom         NotifyType = 16408 // RFC 5685
	EAPOnlyAuthentication  NotifyType = 16417 // RFC 5998
	ChildlessSupported     NotifyType = 16418 // RFC 6023
	FragmentationSupp      NotifyType = 16430 // RFC 7383
	SignatureHashAlgorithm NotifyType = 16431 // RFC 7427
	IntermediateSupported  NotifyType = 16438 // RFC 9242
)

// CPType is the kind of a configuration payload. RFC 7296 §3.15
type CPType uint8

const (
	CFGRequest CPType = 1
	CFGReply   CPType = 2
	CFGSet     CPType = 3
	CFGAck     CPType = 4
)

// Configuration attributes. RFC 7296 §3.15.1
const (
	CPInternalIP4Address uint16 = 1
	CPInternalIP4Netmask uint16 = 2
	CPInternalIP4DNS     uint16 = 3
	CPInternalIP6Address uint16 = 8
	CPInternalIP6DNS     uint16 = 10
	CPInternalDNSDomain  uint16 = 25 // RFC 8598
)
