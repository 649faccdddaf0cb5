//! Reads the configuration and its tables: at a start, at a reload, and for `-n`.
//!
//! At a start, any error in the configuration is fatal, and most errors in tables are only logged.
//! At a reload, any error leaves the old settings in force, even an error in a table.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::engine::{self, Engine};
use super::exit::{self, Exit};
use super::{DEFAULT_CONFIG, Start, directories, permissions, warnings};
use crate::config::{self, Config, ConfigError, LogTo, TableFile, table};
use crate::control::Reloaded;
use crate::history;
use crate::json::Format;
use crate::log;
use crate::privsep::Rights;
use crate::queue::Event;
use crate::sasl::server::set_key;
use crate::sasl::throttle::Throttle;
use crate::site::Settings;
use crate::spool::Spool;
use crate::sys;

impl Start {
    /// Reads the configuration.
    ///
    /// # Errors
    /// All errors in the configuration.
    pub fn load(&self) -> Result<Config, Exit> {
        let loaded = match &self.config {
            Some(path) => config::load(path),
            None => config::parse(Path::new(DEFAULT_CONFIG), ""),
        };
        loaded.map_err(|errors| Exit::of_config(&errors))
    }

    /// Returns the configuration as far as it can be read, or else the defaults. Programs that any
    /// user may run need this function: the user may lack permission for files that the
    /// configuration names, and errors in the configuration must not prevent sending mail.
    pub fn load_partially(&self) -> Config {
        config::examine(self.path()).0.unwrap_or_else(config::default)
    }

    /// Returns all aliases files, each once, even if the rest of the configuration has errors.
    ///
    /// # Errors
    /// If the configuration cannot be read, all errors in it. If the file names invalid aliases
    /// files, the errors in these keys.
    pub fn aliases(&self) -> Result<Vec<TableFile>, Exit> {
        let (config, errors) = match &self.config {
            Some(path) => config::examine(path),
            None => (Some(config::default()), Vec::new()),
        };
        let Some(config) = config else { return Err(Exit::of_config(&errors)) };
        let is_about_aliases = |error: &ConfigError| {
            ["local.aliases: ", "domain.aliases: "].into_iter().any(|key| error.text.starts_with(key))
        };
        let errors: Vec<_> = errors.into_iter().filter(is_about_aliases).collect();
        if !errors.is_empty() {
            return Err(Exit::of_config(&errors));
        }
        let mut files: Vec<_> = config.locals().map(|local| local.aliases.clone()).collect();
        // An empty path stands for an empty table.
        files.retain(|file| !file.path.as_os_str().is_empty());
        let mut seen = HashSet::new();
        files.retain(|file| seen.insert(file.path.clone()));
        Ok(files)
    }

    /// For `-n`: reads the configuration and its tables, and logs to standard error the warnings
    /// that a start would log.
    ///
    /// # Errors
    /// All errors in the configuration and the tables. Also if the spool cannot be used or the log
    /// cannot be opened.
    pub fn examine(&self) -> Result<(), Exit> {
        log::start(&LogTo::Stderr, Format::Text, self.verbose, "penfoldd")
            .map_err(|e| Exit::new(exit::OSERR, "log", &e))?;
        let (settings, _rights) = self.examined()?;
        try_others(&settings);
        #[cfg(feature = "mailauth")]
        warnings::of_keys(&settings);
        directories::try_spool(&settings.config)?;
        Self::try_log(&settings.config.log)
    }

    /// Checks that this process can write to the log, without making a file.
    ///
    /// # Errors
    /// If the log cannot be opened.
    pub fn try_log(to: &LogTo) -> Result<(), Exit> {
        permissions::try_log(to).map_err(|e| permissions::no_log(to, &e))
    }

    /// Does the same for a command that shows the warnings in another form. If this process has a
    /// monitor, it is confined like a server before it asks others. With `asks`, DNS lists and
    /// filters are tried.
    ///
    /// # Errors
    /// All errors in the configuration and the tables. Also if the process cannot be confined.
    pub fn examine_confined(&self, asks: bool) -> Result<Settings, Exit> {
        let (settings, rights) = self.examined()?;
        self.confine(&settings, &rights, true)?;
        if asks {
            try_others(&settings);
        }
        Ok(settings)
    }

    /// Reads the configuration and its tables, and logs the warnings that a start would log. If
    /// this process is root, it becomes the server's user.
    fn examined(&self) -> Result<(Settings, Rights), Exit> {
        let (settings, rights) = self.read_again(None, Arc::default())?;
        sys::raise_descriptor_limit();
        self.warn_early(&settings.config, &rights);
        let sockets: Vec<_> = settings.config.mail_sockets().collect();
        warnings::log_all(&settings, &rights, &sockets);
        warnings::of_a_start(&settings, self.foreground);
        Ok((settings, rights))
    }

    /// Reads the configuration and its tables again, and puts them into force if they have no
    /// errors. `started` is the configuration at the start. Some of its values stay in force until
    /// a restart.
    ///
    /// # Errors
    /// All errors, which are also logged.
    pub(super) fn reload(&self, engine: &Engine, started: &Config) -> Reloaded {
        log::reopen();
        let site = &engine.site;
        let throttle = Arc::clone(&site.settings().logins.throttle);
        let settings = match self.read_again(Some(&site.rights), throttle) {
            Ok((settings, _)) => Arc::new(settings),
            Err(exit) => {
                exit.text.iter().for_each(|line| ::log::error!("{line}"));
                ::log::error!("the configuration has errors: the old one stays in force");
                return Err(exit.text);
            }
        };
        let changes = warnings::of_changes(started, &settings.config, &site.rights);
        changes.iter().for_each(|warning| ::log::warn!("{warning}"));
        warnings::log_all(&settings, &site.rights, &site.outbound.local);
        keep_key(&site.spool, &settings);
        engine.send(Event::Settings(engine::queue_settings(&settings)));
        history::set_bounds(settings.config.history);
        site.replace(settings);
        ::log::info!("configuration and tables read again");
        Ok(changes)
    }

    /// Reads the configuration and its tables. If there are errors in both, returns them together.
    /// If this process is root, it becomes the server's user. Before that, it starts a monitor,
    /// unless `rights` are given.
    fn read_again(&self, rights: Option<&Rights>, throttle: Arc<Throttle>) -> Result<(Settings, Rights), Exit> {
        let (mut wrong, mut rights) = (Vec::new(), rights.cloned());
        let (config, mut errors) = match &self.config {
            Some(path) => config::examine(path),
            None => (Some(self.load()?), Vec::new()),
        };
        if let Some(config) = &config {
            if rights.is_none() {
                rights = self.start_monitor(config).inspect_err(|e| ::log::error!("start the monitor: {e}")).ok();
            }
            wrong.extend(self.become_user(config).err().into_iter().flat_map(|exit| exit.text));
        }
        let rights = rights.unwrap_or_default();
        let settings = match config.map(|config| self.settings(config, &rights, throttle)) {
            Some(Ok((settings, faults))) => {
                errors.extend(faults);
                Some(settings)
            }
            Some(Err(more)) => {
                errors.extend(more);
                None
            }
            None => None,
        };
        match settings {
            Some(settings) if errors.is_empty() && wrong.is_empty() => Ok((settings, rights)),
            _ => {
                wrong.extend(errors.iter().map(ToString::to_string));
                Err(Exit { code: exit::CONFIG, text: wrong })
            }
        }
    }

    /// Calls [`Settings::open`], and adds explanations to permission errors.
    pub(super) fn settings(
        &self,
        config: Config,
        rights: &Rights,
        throttle: Arc<Throttle>,
    ) -> Result<(Settings, Vec<ConfigError>), Vec<ConfigError>> {
        let names = permissions::Names::of(self.path(), &config);
        let explained = |errors: Vec<ConfigError>| errors.into_iter().map(|error| names.explain(error)).collect();
        match Settings::open(config, rights, throttle) {
            Ok((settings, faults)) => Ok((settings, explained(faults))),
            Err(errors) => Err(explained(errors)),
        }
    }

    /// Returns `errors` as an error that ends the program. They were found in files that the
    /// configuration names. Adds explanations to permission errors.
    pub fn explain_files(&self, config: &Config, errors: Vec<ConfigError>) -> Exit {
        let names = permissions::Names::of(self.path(), config);
        Exit::of_config(&errors.into_iter().map(|error| names.explain(error)).collect::<Vec<_>>())
    }

    pub(super) fn path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG))
    }

    /// Logs the warnings that come before all others: about a configuration that a reload could not
    /// read, and about mail in home directories.
    pub(super) fn warn_early(&self, config: &Config, rights: &Rights) {
        if let Some(path) = &self.config {
            warnings::of_configuration(path);
        }
        warnings::of_homes(config, rights);
    }
}

/// Warns of DNS lists, filters and Dovecots that do not answer.
fn try_others(settings: &Settings) {
    warnings::of_dovecot(&settings.config);
    warnings::of_dns_lists(&settings.config);
    #[cfg(feature = "filters")]
    for (number, warning) in settings.filters.warnings() {
        let at = settings.config.places.at(&format!("filter[{number}].socket"));
        ::log::warn!("{at}{warning}");
    }
}

/// Logs the errors in tables, at most a limited number for each file, and one warning for each file
/// with errors. These errors do not prevent a start.
pub(super) fn log_faults(faults: &[ConfigError]) {
    for file_errors in faults.chunk_by(|one, other| one.file == other.file) {
        table::limited(file_errors).for_each(|error| ::log::error!("{error}"));
        let file = file_errors.first().map(|error| error.file.display().to_string()).unwrap_or_default();
        ::log::warn!("{file}: has errors: its valid lines are in force, and mail for the others waits");
    }
}

/// Gets from the spool the key from which the salts of unknown accounts and the secret for
/// rewritten senders are derived. So the salts and the secret stay the same after a restart. Does
/// nothing if neither is needed.
pub(super) fn keep_key(spool: &Spool, settings: &Settings) {
    let has_accounts = !settings.logins.mechanisms(false).is_empty();
    if !has_accounts && !settings.router.rewrites_senders() {
        return;
    }
    match spool.key() {
        Ok(key) => {
            settings.router.set_srs_key(&key);
            set_key(key);
        }
        Err(e) => ::log::warn!("spool: store the key: {e}"),
    }
}
