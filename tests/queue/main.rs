//! The queue: attempts, time, and reports to senders.
//!
//! - `attempts`: when a message is tried, restarts, `penfoldctl queue` and `flush`
//! - `clock`: a system clock that jumps
//! - `dmarc_reports`: the daily DMARC reports to domains
//! - `dsn`: reports that senders ask for, and reports about delays
//! - `etrn`: ETRN, by which a site asks for its mail
//! - `hold`: `penfoldctl hold`, `release` and `remove`
//! - `report_texts`: the text of a report
//! - `reports`: the recipients of reports, and their limits
//! - `selection`: `penfoldctl queue` with selectors, and the commands that change messages by selectors
//! - `show`: `penfoldctl show`
//! - `times`: release times, deadlines and priorities of messages
//! - `tls_reports`: the daily TLS reports to domains

mod attempts;
mod clock;
#[cfg(feature = "mailauth")]
mod dmarc_reports;
mod dsn;
mod etrn;
mod hold;
mod report_texts;
mod reports;
mod selection;
mod show;
mod times;
mod tls_reports;
