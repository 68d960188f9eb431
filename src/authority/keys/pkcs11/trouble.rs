//! What went wrong with a token: whether it may come back, and what an operator hears.

use cryptoki::error::{Error as Said, RvError};

use crate::authority::keys::private::away;
use crate::error::{Error, Kind};

/// Why there is no answer from a token.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The session, the token or its connection is gone: it may come back, by another session or another slot.
    Lost(String),
    /// The token has no session left.
    Full,
    /// What is in the token is not what was there; the library may not have seen that it is there again.
    Stale(String),
    /// Another try would end as this one did.
    Final(Error),
}

impl Trouble {
    /// For whoever asked, of that token.
    pub(super) fn error(self, token: &str) -> Error {
        match self {
            Self::Lost(why) | Self::Stale(why) => away(format!("{token} cannot be used: {why}")).hint(
                "an authority that serves looks for it by itself, by its label, in whichever slot it is then",
            ),
            Self::Full => away(format!("{token} has no session left"))
                .hint("end what else uses the token, or allow it more sessions"),
            Self::Final(error) => error.context(format!("{token} cannot be used")),
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl From<Said> for Trouble {
    fn from(error: Said) -> Self {
        let said = said(&error);
        match error {
            Said::Pkcs11(RvError::SessionCount, _) => Self::Full,
            // What is wrong with the request stays so. All else may be the device, the network before it, or what
            // the vendor says of those.
            Said::Pkcs11(rv, _) if !is_final(rv) => Self::Lost(said),
            _ => Self::Final(Error::new(Kind::Internal, said)),
        }
    }
}

/// As PKCS#11 calls it, without the paragraph that the standard has on it.
pub(super) fn said(error: &Said) -> String {
    match error {
        Said::Pkcs11(rv, function) => format!("C_{function:?} says {rv:?}"),
        other => other.to_string(),
    }
}

fn is_final(rv: RvError) -> bool {
    use RvError as Rv;
    matches!(
        rv,
        Rv::ActionProhibited
            | Rv::ArgumentsBad
            | Rv::AttributeReadOnly
            | Rv::AttributeTypeInvalid
            | Rv::AttributeValueInvalid
            | Rv::CurveNotSupported
            | Rv::DataInvalid
            | Rv::DataLenRange
            | Rv::DomainParamsInvalid
            | Rv::FunctionNotSupported
            | Rv::KeyFunctionNotPermitted
            | Rv::KeySizeRange
            | Rv::KeyTypeInconsistent
            | Rv::MechanismInvalid
            | Rv::MechanismParamInvalid
            | Rv::SessionReadOnly
            | Rv::TemplateIncomplete
            | Rv::TemplateInconsistent
            | Rv::TokenWriteProtected
    )
}
